"""The results as rows: for the page, for the terminal and for `dvc plots`."""

import csv
import io
from typing import Any, NamedTuple

from components.attacks import CELLS
from components.reporting.over_seeds import seeds_table
from components.reporting.read import Results


class Row(NamedTuple):
    """One accuracy: `attack` is "clean", "worst" or an attack's name, `cell` clean or a cell."""

    model: str
    attack: str
    cell: str
    value: float | None
    low: float
    high: float
    n: int


def rows_of(results: Results) -> list[Row]:
    """Every accuracy of every model: clean, each attack in each cell, the worst per cell."""
    rows = []
    for model, summary in results.models.items():
        rows.append(_row(model, "clean", "clean", summary["clean_acc"]))
        for attack, cells in summary["robust_acc"].items():
            rows += [_row(model, attack, cell, cells[cell]) for cell in CELLS if cell in cells]
        worst = summary["worst"]
        rows += [_row(model, "worst", cell, worst[cell]) for cell in CELLS if cell in worst]
    return rows


def _row(model: str, attack: str, cell: str, accuracy: dict[str, Any]) -> Row:
    return Row(model, attack, cell, *(accuracy[k] for k in ("value", "low", "high", "n")))


def to_csv(rows: list[Row]) -> str:
    """The rows with a header line, for `dvc plots`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(rows)
    return text.getvalue()


def attacks_of(results: Results) -> list[str]:
    """All attacks' names in order of the suites."""
    found: dict[str, None] = {}
    for summary in results.models.values():
        found.update(dict.fromkeys(summary["robust_acc"]))
    return list(found)


def percent(accuracy: dict[str, Any] | None) -> str:
    """The form `61.4`, or a dash where nothing was measured."""
    if not accuracy or accuracy.get("value") is None:
        return "–"
    return f"{100 * accuracy['value']:.1f}"


def interval(accuracy: dict[str, Any] | None) -> str:
    """The form `56.2–66.3`, or nothing."""
    if not accuracy or accuracy.get("value") is None:
        return ""
    return f"{100 * accuracy['low']:.1f}–{100 * accuracy['high']:.1f}"


def terminal_table(results: Results) -> str:
    """A table of plain text: one line per model, attack and row of cells, worst case last."""
    models = list(results.models)
    first = max(len(name) for name in (*attacks_of(results), "worst case", "attack"))
    width = max(20, *(len(m) + 2 for m in models))
    lines = [
        "accuracy in % (95 % interval), clips right on clean input and under attack",
        f"{'attack':<{first}}  {'cell':<8}" + "".join(f"{m:>{width}}" for m in models),
    ]

    def line(label: str, cell: str, found: list[dict[str, Any] | None]) -> str:
        shown = [f"{percent(a)} ({interval(a)})" if percent(a) != "–" else "–" for a in found]
        return f"{label:<{first}}  {cell:<8}" + "".join(f"{s:>{width}}" for s in shown)

    summaries = list(results.models.values())
    lines.append(line("clean", "", [s["clean_acc"] for s in summaries]))
    for attack in attacks_of(results):
        for cell in CELLS:
            found = [s["robust_acc"].get(attack, {}).get(cell) for s in summaries]
            lines.append(line(attack, cell, found))
    for cell in CELLS:
        lines.append(line("worst case", cell, [s["worst"].get(cell) for s in summaries]))
    if results.seeds:
        lines += ["", seeds_table(results.seeds)]
    clips = sorted({s["clips"] for s in summaries})
    lines.append(f"test clips: {', '.join(map(str, clips))}")
    return "\n".join(lines)
