"""Names and figures as people say them: attacks, classes, budgets, durations."""

from collections.abc import Iterable, Mapping
from typing import Any

CELL_WORDS = {
    "rgb": "the video alone is attacked",
    "skeleton": "the skeleton alone is attacked",
    "both": "video and skeleton are attacked together",
}
_ATTACKS = {
    "fgsm": "FGSM, one step",
    "pgd": "PGD, {steps} steps",
    "margin_pgd": "PGD on the margin",
    "margin_pgd_t": "PGD on the margin, {n_targets} classes",
    "apgd_ce": "APGD, {steps} steps",
    "apgd_dlr": "APGD on the margin, {steps} steps",
    "apgd_t": "Targeted APGD, {steps} steps",
    "attention_touched": "Push towards the attacked stream, {steps} steps",
    "attention_other": "Push towards the other stream, {steps} steps",
    "heads": "Attack on each stream's own head, {steps} steps",
    "weakest_head": "Attack on the weakest head, {steps} steps",
    "cross": "Attack through the other stream, {steps} steps",
    "transfer": "Transfer from a twin, {steps} steps",
    "square": "Square, {queries} queries without gradients",
}
_MODALITY = {"rgb": "video", "skeleton": "skeleton"}
_UNIT = {"rgb": "colour value of each pixel", "skeleton": "coordinate of each joint"}


def attack_words(entry: Mapping[str, Any]) -> str:
    """An entry of a suite in words, `PGD, 20 steps`; its name where there are none."""
    try:
        return _ATTACKS[entry["attack"]].format(**entry["parameters"])
    except KeyError:
        return str(entry["name"])


def words_by_name(summaries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Each attack of these evaluations in words, by its name in the suite."""
    entries = [entry for summary in summaries for entry in summary.get("attacks", ())]
    return {entry["name"]: attack_words(entry) for entry in entries}


def named_classes(summary: Mapping[str, Any], names: Mapping[Any, str]) -> dict[str, Any]:
    """A model's summary with `names` in the place of action numbers; others stay as they are."""
    by_number = {str(number): name for number, name in names.items()}
    rows = [
        {**row, "class": by_number.get(str(row["class"]), row["class"])}
        for row in summary.get("per_class") or ()
    ]
    weights = {
        kind: {by_number.get(name, name): value for name, value in table.items()}
        if kind.endswith("_by_class")
        else table
        for kind, table in (summary.get("weights") or {}).items()
    }
    return {**summary, "per_class": rows, "weights": weights}


def labels_of(summary: Mapping[str, Any]) -> list[str]:
    """The names of a summary's classes, by label."""
    named = [str(row["class"]) for row in summary.get("per_class") or ()]
    return [f"class {name}" if name.isdigit() else name for name in named]


def threat_words(threat: Mapping[str, Any]) -> list[str]:
    """The budgets in words and units, one sentence per modality."""
    words = []
    for name in ("rgb", "skeleton"):
        budget = threat.get(name)
        if not budget:
            if threat:
                words.append(f"The {_MODALITY[name]} is never touched.")
            continue
        eps, norm = float(budget["eps"]), budget["norm"]
        if norm == "Linf":
            least = f"each {_UNIT[name]} moves by at most "
        else:
            least = f"the whole change of the {_MODALITY[name]} has an L2 norm of at most "
        words.append(f"{_MODALITY[name].capitalize()}: {least}{_size(name, eps, norm)}.")
    return words


def _size(name: str, eps: float, norm: str) -> str:
    if name == "skeleton":
        return f"{eps:.3g} m ({100 * eps:.3g} cm)"
    return f"{255 * eps:.3g}/255 of the full range" if norm == "Linf" else f"{eps:.3g}"


def duration(seconds: float) -> str:
    """The form `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
