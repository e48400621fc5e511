"""The plots of the report, each as an SVG text that needs nothing else."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from components.attacks import CELLS
from components.reporting.read import Results
from components.reporting.words import words_by_name

# Okabe and Ito's palette: told apart by colour-blind readers and in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.edgecolor": "#888888",
    "legend.frameon": False,
    "svg.hashsalt": "report",  # the same figures give the same bytes
    "svg.fonttype": "path",
}
UNITS = {"rgb": "RGB eps (of 255)", "skeleton": "skeleton eps (cm)"}
SCALE = {"rgb": 255.0, "skeleton": 100.0}


def colour_of(results: Results) -> dict[str, str]:
    """One colour per model, the same in all plots."""
    return {m: COLOURS[i % len(COLOURS)] for i, m in enumerate(results.models)}


def overview(results: Results) -> str:
    """Clean and worst-case accuracy per cell, one dot with its interval per model."""
    with matplotlib.rc_context(STYLE):
        groups = ("clean", *CELLS)
        figure, axes = _figure(7.2, 2.9)
        names, colours = list(results.models), colour_of(results)
        gap = 0.62 / max(len(names), 1)
        for i, name in enumerate(names):
            summary = results.models[name]
            found = [summary["clean_acc"], *(summary["worst"].get(cell) for cell in CELLS)]
            place = [g + (i - (len(names) - 1) / 2) * gap for g in range(len(groups))]
            _dots(axes, place, found, colours[name], name)
        axes.set_xticks(range(len(groups)))
        axes.set_xticklabels(["clean", *(f"{c} attacked" for c in CELLS)])
        axes.grid(axis="x", visible=False)
        _percent_axis(axes)
        _legend_above(axes)
        return _svg(figure)


def eps_curves(results: Results) -> str | None:
    """Robust accuracy against eps for each modality, a line with its interval per model."""
    shown = {m: c for m, c in results.curves.items() if c.get("eps")}
    modalities = [k for k in ("rgb", "skeleton") if any(c.get(k) for c in shown.values())]
    if not modalities:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        colours = colour_of(results)
        row = figure.subplots(1, len(modalities), sharey=True, squeeze=False)[0]
        for axes, modality in zip(row, modalities, strict=True):
            for name, curve in shown.items():
                points = [a for a in curve.get(modality, []) if a["value"] is not None]
                eps = [e * SCALE[modality] for e in curve["eps"].get(modality, [])][: len(points)]
                if not points:
                    continue
                axes.plot(eps, _values(points), "o-", ms=3.5, color=colours[name], label=name)
                low, high = ([100 * a[k] for a in points] for k in ("low", "high"))
                axes.fill_between(eps, low, high, color=colours[name], alpha=0.12, lw=0)
            axes.set_xlabel(UNITS[modality])
            _percent_axis(axes)
        row[-1].set_ylabel("")
        _legend_above(row[0])
        return _svg(figure)


def heat_map(results: Results) -> str | None:
    """eps_rgb x eps_skeleton, one panel per model."""
    shown = {m: c for m, c in results.curves.items() if c and _is_grid(c.get("grid"))}
    if not shown:
        return None
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(min(2.5 * len(shown) + 0.6, 10), 2.8), layout="constrained")
        row = figure.subplots(1, len(shown), squeeze=False)[0]
        for axes, (name, curve) in zip(row, shown.items(), strict=True):
            values = [[math.nan if v is None else 100 * v for v in line] for line in curve["grid"]]
            axes.imshow(values, origin="lower", vmin=0, vmax=100, cmap="viridis", aspect="auto")
            for i, line in enumerate(values):
                for j, value in enumerate(line):
                    ink = "white" if value < 60 else "black"
                    text = "–" if math.isnan(value) else f"{value:.0f}"
                    axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=8)
            _eps_ticks(axes, curve)
            axes.set_title(name, fontsize=9)
        row[0].set_ylabel(UNITS["rgb"])
        return _svg(figure)


def per_class(results: Results) -> str | None:
    """Clean and worst-case accuracy of the main model for each class."""
    rows = results.models[results.main].get("per_class") or []
    rows = [r for r in rows if r["clean_acc"]["value"] is not None]
    if not rows:
        return None
    cell = next((c for c in reversed(CELLS) if c in rows[0]["worst"]), None)
    attacked = [r["worst"][cell] if cell else r["clean_acc"] for r in rows]
    order = sorted(range(len(rows)), key=lambda i: -(attacked[i]["value"] or 0))
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(7.2, max(1.6, 0.6 + 0.21 * len(rows)))
        for place, i in enumerate(reversed(order)):
            clean, worst = rows[i]["clean_acc"], attacked[i]
            ends = [100 * worst["value"], 100 * clean["value"]]
            axes.plot(ends, [place, place], color="#bbbbbb", lw=2, zorder=1)
            axes.plot(ends[1], place, "o", color=COLOURS[0], ms=5)
            axes.plot(ends[0], place, "o", color=COLOURS[1], ms=5)
        axes.set_yticks(range(len(rows)))
        axes.set_yticklabels([str(rows[i]["class"]) for i in reversed(order)])
        axes.set_xlim(-2, 102)
        axes.set_xlabel("accuracy in %")
        axes.grid(axis="y", visible=False)
        axes.plot([], [], "o", color=COLOURS[0], label="clean")
        axes.plot([], [], "o", color=COLOURS[1], label=f"{cell} attacked, worst case")
        _legend_above(axes)
        return _svg(figure)


def training(results: Results) -> str | None:
    """Loss, and clean and worst-case robust validation accuracy, by epoch."""
    shown = {m: rows for m, rows in results.history.items() if rows}
    if not shown:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.7), layout="constrained")
        left, right = figure.subplots(1, 2)
        colours = colour_of(results)
        for name, rows in shown.items():
            colour = colours[name]
            left.plot(*_series(rows, "loss"), color=colour, label=name)
            for key, style in (("val_clean_acc", "--"), ("val_robust_acc_worst", "-")):
                epochs, values = _series(rows, key)
                right.plot(epochs, [100 * v for v in values], style, color=colour)
        right.plot([], [], "--", color="#555555", label="clean")
        right.plot([], [], "-", color="#555555", label="worst cell, attacked")
        left.set_ylabel("training loss")
        _percent_axis(right)
        right.set_ylabel("validation accuracy in %")
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.legend(fontsize=8)
        return _svg(figure)


def modality_weights(results: Results) -> str | None:
    """Mean weight of the video, per stage of the main model: clean and under each attack."""
    weights = results.models[results.main].get("weights") or {}
    stages = list(weights.get("clean", {}))
    if not stages:
        return None
    attacks = weights.get("attacked", {})
    words = words_by_name([results.models[results.main]])
    short = {name: text.partition(",")[0] for name, text in words.items()}
    labels = [f"{short.get(a, a)} · {c}" for a, cells in attacks.items() for c in cells]
    labels = ["clean", *labels]
    tables = [weights["clean"], *(t for cells in attacks.values() for t in cells.values())]
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(7.2, 0.7 + 0.19 * len(labels))
        for p, stage in enumerate(stages):
            for y, table in enumerate(reversed(tables)):
                groups = table.get(stage, [])
                offset = (p - (len(stages) - 1) / 2) * 0.22
                label = stage if y == 0 else None
                axes.plot(
                    groups, [y + offset] * len(groups), "o", ms=4, alpha=0.8,
                    color=COLOURS[p % len(COLOURS)], label=label,
                )  # fmt: skip
        axes.axvline(0.5, color="#999999", lw=0.8, ls=":")
        axes.set_yticks(range(len(labels)))
        axes.set_yticklabels(list(reversed(labels)))
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("mean weight of the video (the skeleton has the rest); a dot per group")
        axes.grid(axis="y", visible=False)
        _legend_above(axes)
        return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _dots(
    axes: Axes,
    place: Sequence[float],
    found: Sequence[Mapping[str, Any] | None],
    colour: str,
    label: str,
) -> None:
    measured = [(x, a) for x, a in zip(place, found, strict=True) if a and a["value"] is not None]
    values = [100 * a["value"] for _, a in measured]
    below = [100 * (a["value"] - a["low"]) for _, a in measured]
    above = [100 * (a["high"] - a["value"]) for _, a in measured]
    axes.errorbar(
        [x for x, _ in measured], values, yerr=[below, above], fmt="o", ms=5, lw=1.4,
        color=colour, label=label,
    )  # fmt: skip
    for (x, found_here), value in zip(measured, values, strict=True):
        top = (x, 100 * found_here["high"])  # beside the dot the next model's would be in the way
        axes.annotate(
            f"{value:.0f}", top, (0, 2), textcoords="offset points", fontsize=7, ha="center"
        )


def _values(points: Sequence[Mapping[str, Any]]) -> list[float]:
    return [100 * a["value"] for a in points]


def _series(rows: Sequence[Mapping[str, str]], key: str) -> tuple[list[float], list[float]]:
    """Epochs and finite values of a column; empty when the column is not there."""
    pairs = [(float(r["epoch"]), float(r[key])) for r in rows if r.get(key) not in (None, "")]
    finite = [(x, y) for x, y in pairs if math.isfinite(y)]
    return [x for x, _ in finite], [y for _, y in finite]


def _is_grid(grid: Any) -> bool:
    return bool(grid) and len(grid) > 1 and len(grid[0]) > 1


def _eps_ticks(axes: Axes, curve: Mapping[str, Any]) -> None:
    for axis, name in ((axes.yaxis, "rgb"), (axes.xaxis, "skeleton")):
        eps = [f"{e * SCALE[name]:.3g}" for e in curve["eps"][name]]
        axis.set_ticks(range(len(eps)))
        axis.set_ticklabels(eps)
    axes.set_xlabel(UNITS["skeleton"])


def _percent_axis(axes: Axes) -> None:
    axes.set_ylim(0, 102)
    axes.set_ylabel("accuracy in %")


def _legend_above(axes: Axes) -> None:
    """At the left, where it is seen when a narrow window shows a part of the plot."""
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), fontsize=8, ncols=4, borderaxespad=0)


def _svg(figure: Figure) -> str:
    """On nothing, so that the page's own paper shows, light or dark."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return text.getvalue()
