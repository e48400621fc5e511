"""The fixed suites: which attacks run, with which parameters, in which order. Data, no options.

A suite has no settings on purpose: two tables made with the same `suite_hash` were made by the
same attacks. Steps grow, never shrink; a change of any entry changes the hash.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Needs = Literal["", "weights", "aux", "twin"]


@dataclass(frozen=True)
class Entry:
    """One attack of a suite.

    individual: it sees every clip that is right on clean input, so that its own robust accuracy
    is exact; otherwise it only sees the clips that stood up to all attacks before it.
    needs: run only on models that have modality weights or auxiliary heads, or with a twin given.
    """

    name: str
    attack: str
    parameters: dict[str, Any] = field(default_factory=dict)
    individual: bool = False
    needs: Needs = ""


FGSM = Entry("fgsm", "fgsm", individual=True)
PGD20 = Entry("pgd20", "pgd", {"steps": 20}, individual=True)

THIN: tuple[Entry, ...] = (FGSM, PGD20)
QUICK: tuple[Entry, ...] = (
    FGSM,
    PGD20,
    Entry("apgd_ce", "apgd_ce", {"steps": 20}),
    Entry("square", "square", {"steps": 100}),
)
STANDARD: tuple[Entry, ...] = (
    FGSM,
    PGD20,
    Entry("apgd_ce", "apgd_ce", {"steps": 100}),
    Entry("apgd_t", "apgd_t", {"steps": 50}),
    Entry("square", "square", {"steps": 1000}),
)
SUITES: dict[str, tuple[Entry, ...]] = {"thin": THIN, "quick": QUICK, "standard": STANDARD}


def entries_of(suite: str | Sequence[Entry], has: frozenset[str] = frozenset()) -> list[Entry]:
    """The entries of a suite that apply to a model which `has` "weights", "aux", a "twin".

    Raises ValueError for an unknown suite or for two entries of one name.
    """
    if isinstance(suite, str):
        if suite not in SUITES:
            raise ValueError(f"no suite {suite!r}; there are: {', '.join(SUITES)}")
        suite = SUITES[suite]
    names = [entry.name for entry in suite]
    if len(set(names)) < len(names):
        raise ValueError(f"two attacks of the suite share a name: {', '.join(names)}")
    return [entry for entry in suite if not entry.needs or entry.needs in has]


def suite_hash(entries: Sequence[Entry]) -> str:
    """Twelve hex digits that change with any attack, parameter or their order."""
    text = json.dumps([asdict(entry) for entry in entries], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
