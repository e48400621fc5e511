"""May two evaluations stand in one table? One answer for report, gate, results, seeds, curves."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

# Key of an evaluation's summary, or of its curves -> what it is called in a message.
TERMS = {
    "recipe": "recipe",
    "threat_fingerprint": "threat model",
    "shards_fingerprint": "shards",
    "clips": "number of test clips",
    "clips_fingerprint": "set of test clips",
    "eps": "eps",
    "norm": "norm",
    "attack": "attack",
}


def differences_in_terms(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What keeps two evaluations apart, e.g. `["threat model"]`; empty: comparable.

    one, other: two summaries (`<run>.json`) or two sets of curves (`<run>_curves.json`). A term
    that one of them does not state, as a model evaluated in a notebook states no recipe, keeps
    nothing apart.
    """
    found = [
        words
        for key, words in TERMS.items()
        if one.get(key) is not None and other.get(key) is not None and one[key] != other[key]
    ]
    if "number of test clips" in found and "set of test clips" in found:
        found.remove("set of test clips")
    return [*found, "attack suite"] if _other_suite(one, other) else found


def apart_from(run: str, summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each kind of difference between `run` and the other evaluations beside it."""
    by_terms: dict[str, list[str]] = {}
    for other, summary in summaries.items():
        if terms := differences_in_terms(summaries[run], summary):
            by_terms.setdefault(" and ".join(terms), []).append(other)
    return [
        f"{run} was evaluated with another {terms} than {', '.join(others)}: `dvc metrics show` "
        "prints them in one table all the same; report, results and gate keep them apart"
        for terms, others in by_terms.items()
    ]


def clips_fingerprint(ids: Iterable[str]) -> str:
    """A short hash of a set of clips, whatever their order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


def _other_suite(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the suites differ in more than the attacks that a model has no part for.

    `suite_hash` covers the attacks that ran: a model without modality weights meets none on them.
    """
    names = one.get("suite"), other.get("suite")
    if None not in names and names[0] != names[1]:
        return True
    mine, theirs = (
        {entry["name"]: entry for entry in summary.get("attacks", ())} for summary in (one, other)
    )
    if any(mine[name] != theirs[name] for name in mine.keys() & theirs.keys()):
        return True
    alone = [(mine | theirs)[name] for name in mine.keys() ^ theirs.keys()]
    return any(not entry.get("needs") for entry in alone)
