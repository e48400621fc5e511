"""What several seeds together say: mean, spread and paired differences, from per-clip records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.attacks import CELLS
from components.evaluation.bootstrap import over_seeds
from components.evaluation.verdicts import verdicts

COLUMNS = ("clean", *CELLS)


def summarise_seeds(
    folder: Path, runs: Mapping[str, Mapping[str, Any]], notes: list[str]
) -> dict[str, Any]:
    """Means over seeds by variant and cell, and paired differences to the first variant.

    folder: holds `<run>.arrow`; runs: evaluation summaries by run, the main variant first. Only
    seeds that every variant has are used. {} when there are fewer than two.
    """
    seeds_of: dict[str, set[int]] = {}
    for body in runs.values():
        seeds_of.setdefault(body["variant"], set()).add(body["seed"])
    seeds = sorted(set.intersection(*seeds_of.values()))
    if len(seeds) < 2:
        return {}
    variants = list(seeds_of)
    tables: dict[tuple[str, str], np.ndarray] = {}
    clips: list[str] = []
    for variant in variants:
        for cell in COLUMNS:
            rows = []
            for seed in seeds:
                path = folder / f"{variant}-s{seed}.arrow"
                if not path.is_file():
                    notes.append(f"evaluation/{path.name} is not there: no figures over seeds")
                    return {}
                robust = verdicts(path, cell)
                clips = clips or sorted(robust)
                if sorted(robust) != clips:
                    notes.append(f"{path.stem} was tested on other clips: no figures over seeds")
                    return {}
                rows.append([robust[clip] for clip in clips])
            tables[variant, cell] = np.array(rows, dtype=float)
    first, *others = variants
    return {
        "seeds": seeds,
        "clips": len(clips),
        "models": {v: {c: over_seeds(tables[v, c]) for c in COLUMNS} for v in variants},
        "differences": [
            {"model": first, "other": other, "cell": cell}
            | over_seeds(tables[first, cell] - tables[other, cell])
            for other in others
            for cell in COLUMNS
        ],
        "suite": str(next(iter(runs.values())).get("suite", "")),
    }


def lines_of_seeds(body: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """(model or `model - other`, text by cell): mean ± spread (95 % interval), in % or points."""
    lines = [
        (model, {cell: _shown(found) for cell, found in cells.items()})
        for model, cells in body["models"].items()
    ]
    for other in dict.fromkeys(d["other"] for d in body["differences"]):
        found = {d["cell"]: d for d in body["differences"] if d["other"] == other}
        name = f"{found['clean']['model']} - {other}"
        lines.append((name, {cell: _shown(one, "+") for cell, one in found.items()}))
    return lines


def seeds_table(body: Mapping[str, Any]) -> str:
    """Plain text: mean ± spread (95 % interval) in %, then the differences in points."""
    rows = lines_of_seeds(body)
    width = max(10, *(len(name) for name, _ in rows)) + 2
    lines = [
        f"accuracy in %, mean ± standard deviation of {len(body['seeds'])} seeds (95 % interval "
        f"over seeds and {body['clips']} test clips)",
        " " * width + "".join(f"{c:>26}" for c in COLUMNS),
    ]
    lines += [
        f"{name:<{width}}" + "".join(f"{shown[c]:>26}" for c in COLUMNS) for name, shown in rows
    ]
    return "\n".join(lines)


def _shown(found: Mapping[str, Any], sign: str = "") -> str:
    value, low, high = (f"{100 * found[key]:{sign}.1f}" for key in ("value", "low", "high"))
    spread = "" if found["std"] is None else f" ±{100 * found['std']:.1f}"
    return f"{value}{spread} ({low}, {high})"
