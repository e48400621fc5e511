"""What several seeds together say: mean, spread and paired differences, from per-clip records."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluation.seeds import over_seeds
from components.reporting.paired import verdicts
from components.reporting.read import CELLS, ReportError

COLUMNS = ("clean", *CELLS)


def summarise_seeds(folders: Mapping[int, Path], models: Sequence[str]) -> dict[str, Any]:
    """One body for `seeds.json`: `models[model][cell]` and `differences`, over all seeds.

    folders: an artifacts folder for each seed, all with `evaluation/<model>.arrow`. The first model
    is held against each other one. ReportError when the seeds were tested on different clips.
    """
    tables: dict[tuple[str, str], np.ndarray] = {}
    clips: list[str] | None = None
    for model in models:
        for cell in COLUMNS:
            rows = []
            for folder in folders.values():
                found = verdicts(folder / "evaluation" / f"{model}.arrow", cell)
                clips = clips or sorted(found)
                if sorted(found) != clips:
                    raise ReportError(
                        f"{folder} has {len(found)} clips tested, others have {len(clips)} (or "
                        "others); run all seeds with the same data and evaluate settings"
                    )
                rows.append([found[clip] for clip in clips])
            tables[model, cell] = np.array(rows, dtype=float)
    first, *others = models
    return {
        "seeds": list(folders),
        "clips": len(clips or ()),
        "models": {m: {cell: over_seeds(tables[m, cell]) for cell in COLUMNS} for m in models},
        "differences": [
            {"model": first, "other": other, "cell": cell}
            | over_seeds(tables[first, cell] - tables[other, cell])
            for other in others
            for cell in COLUMNS
        ],
    }


def rows_of_seeds(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same as flat rows, for a spreadsheet."""
    rows = [
        {"model": model, "minus": "", "cell": cell, **found}
        for model, cells in body["models"].items()
        for cell, found in cells.items()
    ]
    rows += [
        {
            "model": found["model"],
            "minus": found["other"],
            **{k: v for k, v in found.items() if k not in ("model", "other")},
        }
        for found in body["differences"]
    ]
    for row in rows:
        row["per_seed"] = " ".join(f"{value:.4f}" for value in row["per_seed"])
    return rows


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
        f"{name:<{width}}" + "".join(f"{told[c]:>26}" for c in COLUMNS) for name, told in rows
    ]
    return "\n".join(lines)


def seeds_markdown(body: Mapping[str, Any]) -> str:
    """The same as a Markdown table, without intervals: the description of the run above all."""
    lines = [
        f"{len(body['seeds'])} seeds, {body['clips']} test clips: mean ± standard deviation, in %. "
        "Intervals are in `seeds.csv`.",
        "",
        "| | " + " | ".join(COLUMNS) + " |",
        "|---|" + "--:|" * len(COLUMNS),
    ]
    for name, told in lines_of_seeds(body):
        lines.append(
            f"| {name} | " + " | ".join(told[c].partition(" (")[0] for c in COLUMNS) + " |"
        )
    return "\n".join(lines)


def _shown(found: Mapping[str, Any], sign: str = "") -> str:
    value, low, high = (f"{100 * found[key]:{sign}.1f}" for key in ("value", "low", "high"))
    spread = "" if found["std"] is None else f" ±{100 * found['std']:.1f}"
    return f"{value}{spread} ({low}, {high})"
