"""The fixed suites: which attacks run, with which parameters, in which order. Data, no options.

A suite has no settings on purpose: two tables made with the same `suite_hash` were made by the
same attacks. Steps grow, never shrink; a change of any entry changes the hash.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

from components.errors import UserError

Needs = Literal["", "weights", "aux", "twin"]


@dataclass(frozen=True)
class Entry:
    """One attack of a suite.

    individual: it sees every clip that is right on clean input, so that its own robust accuracy
    is exact; otherwise it only sees the clips that stood up to all attacks before it.
    needs: run only on models that have modality weights or auxiliary heads, or with a twin given
    (a model without AMR, whose adversarial clips are tried on this one).
    """

    name: str
    attack: str
    parameters: dict[str, Any] = field(default_factory=dict)
    individual: bool = False
    needs: Needs = ""


def _adaptive(steps: int) -> tuple[Entry, ...]:
    """What knows AMR: push the attention, break the heads, attack through the other stream."""
    parameters = {"steps": steps}
    return (
        Entry("attention_touched", "attention_touched", parameters, needs="weights"),
        Entry("attention_other", "attention_other", parameters, needs="weights"),
        Entry("heads", "heads", parameters, needs="aux"),
        Entry("weakest_head", "weakest_head", parameters, needs="aux"),
        Entry("cross", "cross", parameters, needs="aux"),
    )


FGSM = Entry("fgsm", "fgsm", individual=True)
# A clip that is fooled takes no further step: the same verdict for fewer passes.
PGD20 = Entry("pgd20", "pgd", {"steps": 20, "early_stop": True}, individual=True)
MARGIN = Entry(
    "margin_pgd",
    "margin_pgd",
    {"steps": 9, "n_targets": 3, "target_steps": 6},
    individual=True,
)

# FGSM and PGD-20 are what papers print; `margin_pgd` is nearly the verdict for 60 passes.
THIN: tuple[Entry, ...] = (FGSM, PGD20, MARGIN)
QUICK: tuple[Entry, ...] = (
    FGSM,
    PGD20,
    replace(MARGIN, individual=False),
    Entry("attention_touched", "attention_touched", {"steps": 10}, needs="weights"),
    Entry("square", "square", {"queries": 20}),
)
# What a whole test set of some hundred clips can be given on CPUs.
FULL: tuple[Entry, ...] = (
    *THIN,
    Entry("margin_pgd_t", "margin_pgd_t", {"target_steps": 22, "n_targets": 4}),
    Entry("attention_touched", "attention_touched", {"steps": 20}, needs="weights"),
)
# What breaks most clips for its passes comes first (docs/research/verdict.md).
STANDARD: tuple[Entry, ...] = (
    *THIN,
    Entry("margin_pgd_t", "margin_pgd_t", {"target_steps": 22, "n_targets": 9}),
    *_adaptive(25),
    # Short and broad: some clips fall towards one class alone, and not the likeliest two.
    Entry("apgd_t", "apgd_t", {"steps": 16, "n_targets": 9}),
    Entry("transfer", "transfer", {"steps": 20}, needs="twin"),
    Entry("square", "square", {"queries": 1000, "give_up": True}),
)
# `standard` as it was before `margin_pgd`, at three times the price: to compare with old tables.
STANDARD_1: tuple[Entry, ...] = (
    FGSM,
    PGD20,
    Entry("apgd_ce", "apgd_ce", {"steps": 100}),
    *_adaptive(50),
    Entry("apgd_t", "apgd_t", {"steps": 100, "n_targets": 9}),
    Entry("transfer", "transfer", {"steps": 20}, needs="twin"),
    Entry("square", "square", {"queries": 1000}),
)
SUITES: dict[str, tuple[Entry, ...]] = {
    "thin": THIN,
    "quick": QUICK,
    "full": FULL,
    "standard": STANDARD,
    "standard-1": STANDARD_1,
}


def entries_of(suite: str | Sequence[Entry], has: frozenset[str] = frozenset()) -> list[Entry]:
    """The entries of a suite that apply to a model which `has` "weights", "aux", a "twin".

    Raises ValueError for an unknown suite or for two entries of one name.
    """
    if isinstance(suite, str):
        if suite not in SUITES:
            raise UserError(f"no suite {suite!r}; there are: {', '.join(SUITES)}")
        suite = SUITES[suite]
    names = [entry.name for entry in suite]
    if len(set(names)) < len(names):
        raise UserError(f"two attacks of the suite share a name: {', '.join(names)}")
    return [entry for entry in suite if not entry.needs or entry.needs in has]


def is_current(suite: str, found: str) -> bool:
    """Whether `found` is the hash of this suite as it is now, for a model of any abilities.

    An unknown suite is somebody's own and has no other form.
    """
    if suite not in SUITES:
        return True
    needs = sorted({entry.needs for entry in SUITES[suite]} - {""})
    abilities = [frozenset(c) for n in range(len(needs) + 1) for c in combinations(needs, n)]
    return found in {suite_hash(entries_of(suite, has)) for has in abilities}


def describe(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Plain values for JSON, in order."""
    return [asdict(entry) for entry in entries]


def suite_hash(entries: Sequence[Entry]) -> str:
    """Twelve hex digits that change with any attack, parameter or their order."""
    text = json.dumps(describe(entries), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
