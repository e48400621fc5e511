"""May two evaluations stand in one table? One answer for report, gate, results and curves."""

from collections.abc import Mapping
from typing import Any

# Key of an evaluation's summary -> what it is called in a message.
TERMS = {
    "recipe": "recipe",
    "threat_fingerprint": "threat model",
    "shards_fingerprint": "shards",
    "clips": "number of test clips",
}


def differences_in_terms(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What keeps two evaluation summaries apart, e.g. `["threat model"]`; empty: comparable."""
    found = [
        words
        for key, words in TERMS.items()
        if one.get(key) is not None and other.get(key) is not None and one[key] != other[key]
    ]
    return [*found, "attack suite"] if _other_suite(one, other) else found


def _other_suite(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the suites differ in more than the attacks that a model has no part for.

    `suite_hash` covers the attacks that ran: a model without modality weights meets none on them.
    """
    if one.get("suite") != other.get("suite"):
        return None not in (one.get("suite"), other.get("suite"))
    mine, theirs = (
        {entry["name"]: entry for entry in summary.get("attacks", ())} for summary in (one, other)
    )
    if any(mine[name] != theirs[name] for name in mine.keys() & theirs.keys()):
        return True
    alone = [(mine | theirs)[name] for name in mine.keys() ^ theirs.keys()]
    return any(not entry.get("needs") for entry in alone)
