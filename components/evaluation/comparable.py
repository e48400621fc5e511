"""May two evaluations stand in one table? One answer for report, gate, results and curves."""

from collections.abc import Mapping
from typing import Any

# Key of an evaluation's summary -> what it is called in a message.
TERMS = {
    "recipe": "recipe",
    "threat_fingerprint": "threat model",
    "suite_hash": "attack suite",
    "shards_fingerprint": "shards",
    "clips": "number of test clips",
}


def differences_in_terms(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What keeps two evaluation summaries apart, e.g. `["threat model"]`; empty: comparable."""
    return [
        words
        for key, words in TERMS.items()
        if one.get(key) is not None and other.get(key) is not None and one[key] != other[key]
    ]
