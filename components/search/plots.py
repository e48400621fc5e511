"""Three pictures of a search: the Pareto front, what mattered, and every trial as a line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

INK, MUTED, LINE = "#1f2933", "#9aa5b1", "#0b7285"
COLOURS = colormaps["viridis"]
NAMED = 8  # trials, up to which each line carries its number


def draw(folder: Path, trials: pa.Table, shares: Mapping[str, float]) -> list[Path]:
    """Write pareto.png, importances.png and parallel.png for the table of trials."""
    rows = [row for row in trials.to_pylist() if row["robust_acc"] is not None]
    parameters = [n for n in trials.schema.names if "." in n]
    pictures = {
        "pareto.png": _pareto(rows),
        "importances.png": _importances(shares),
        "parallel.png": _parallel(rows, parameters),
    }
    paths = []
    for name, figure in pictures.items():
        paths.append(folder / name)
        figure.savefig(paths[-1], dpi=130, bbox_inches="tight")
    return paths


def _pareto(rows: list[dict[str, Any]]) -> Figure:
    """Clean against robust accuracy; colour and size tell what the training cost."""
    figure, axes = _figure(6.0, 4.4)
    axes.set_xlabel("validation clean accuracy")
    axes.set_ylabel("validation robust accuracy, worst cell")
    if not rows:
        return _nothing(figure, axes)
    cost = np.array([row["passes"] / 1e6 for row in rows])
    clean = [row["clean_acc"] for row in rows]
    robust = [row["robust_acc"] for row in rows]
    dots = axes.scatter(clean, robust, c=cost, cmap=COLOURS, s=46, edgecolors="white", zorder=3)
    figure.colorbar(dots, ax=axes, label="training passes, millions")
    front = sorted(
        ((row["clean_acc"], row["robust_acc"]) for row in rows if row["pareto"]), reverse=True
    )
    x, y = zip(*front, strict=True)
    axes.scatter(x, y, s=120, facecolors="none", edgecolors=LINE, zorder=4)
    for row in rows:
        words = [w for w in ("winner", "default") if row[w]]
        if words:
            at = (row["clean_acc"], row["robust_acc"])
            axes.annotate(", ".join(words), at, (6, 6), textcoords="offset points", color=INK)
    axes.set_title("rings: no trial is better in robust, clean and cost at once", fontsize=9)
    return figure


def _importances(shares: Mapping[str, float]) -> Figure:
    figure, axes = _figure(6.0, 0.8 + 0.36 * max(3, len(shares)))
    axes.set_xlabel("share of the variance of robust accuracy (fANOVA)")
    if not shares:
        return _nothing(figure, axes, "too few trials to tell")
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names], color=LINE)
    axes.set_xlim(0, 1)
    return figure


def _parallel(rows: list[dict[str, Any]], parameters: list[str]) -> Figure:
    """One vertical scale a parameter, one line a trial, coloured by robust accuracy."""
    names = [*parameters, "robust_acc"]
    figure, axes = _figure(1.8 + 1.7 * len(names), 4.2)
    if not rows or not parameters:
        return _nothing(figure, axes)
    scales = {name: _scale([row[name] for row in rows]) for name in names}
    robust = [row["robust_acc"] for row in rows]
    norm = Normalize(min(robust), max(robust) if max(robust) > min(robust) else min(robust) + 1e-9)
    for row in sorted(rows, key=lambda r: r["robust_acc"]):
        heights = [scales[name][0](row[name]) for name in names]
        colour = COLOURS(norm(row["robust_acc"]))
        style = "-" if row["status"] == "completed" else ":"
        width = 2.6 if row["winner"] else 1.4
        axes.plot(range(len(names)), heights, style, color=colour, lw=width, alpha=0.9)
        if len(rows) <= NAMED:
            axes.plot(range(len(names)), heights, "o", color=colour, ms=4)
            word = "defaults" if row["default"] else f"trial {row['number']}"
            axes.text(len(names) - 0.82, heights[-1], word, fontsize=7, color=INK, va="center")
    for i, name in enumerate(names):
        axes.axvline(i, color=MUTED, lw=0.8, zorder=0)
        for height, label in scales[name][1]:
            axes.text(i + 0.03, height, label, fontsize=7, color=INK, va="center")
    axes.set_xticks(range(len(names)), [_short(name) for name in names], fontsize=8)
    axes.set_yticks([])
    axes.set_ylim(-0.06, 1.06)
    axes.spines[:].set_visible(False)
    axes.set_title("dotted: stopped early; thick: the winner", fontsize=9)
    return figure


def _scale(values: list[Any]) -> tuple[Any, list[tuple[float, str]]]:
    """A function from a value to a height in [0, 1], and ticks (height, label)."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numbers:
        kinds = sorted({str(v) for v in values})
        top = max(1, len(kinds) - 1)
        return (lambda v: kinds.index(str(v)) / top), [(i / top, k) for i, k in enumerate(kinds)]
    low, high = float(min(values)), float(max(values))
    wide = low > 0 and high / low >= 10  # several orders of magnitude are told apart by logarithms
    form, back = (np.log, np.exp) if wide else (float, float)
    first = float(form(low))
    width = (float(form(high)) - first) or 1.0
    ticks = [(t, f"{float(back(first + t * width)):.3g}") for t in (0.0, 0.5, 1.0)]
    return (lambda v: (float(form(v)) - first) / width), ticks if high > low else ticks[:1]


def _short(name: str) -> str:
    return name.removeprefix("train.").removeprefix("model.").replace(".", ".\n")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _nothing(figure: Figure, axes: Axes, words: str = "no trial has a score") -> Figure:
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes, color=MUTED)
    return figure
