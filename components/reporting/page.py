"""Puts figures, tables and plots into one HTML page that needs no other file."""

import base64
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from components.attacks import CELLS
from components.reporting import plots
from components.reporting.read import Results
from components.reporting.seeds import COLUMNS, lines_of_seeds
from components.reporting.table import attacks_of, interval, percent

CELL_WORDS = {
    "rgb": "the video alone is attacked",
    "skeleton": "the skeleton alone is attacked",
    "both": "video and skeleton are attacked together",
}
SHOWN_TRIALS = 6
TELLING = 5  # trials with a score, below which importances and lines say nothing
# Columns of the trials' table that the page tells otherwise, or not at all.
HIDDEN = (
    "key", "error", "passes", "best_epoch", "epochs", "status", "default", "winner", "pareto",
)  # fmt: skip


def build_page(
    results: Results,
    *,
    title: str,
    synthetic: bool,
    differences: list[dict[str, Any]],
    train_eps: list[dict[str, Any]],
    lineage: dict[str, Any],
) -> str:
    """The page's HTML. `synthetic`: say at the top that nothing here was filmed."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(
        percent=percent,
        interval=interval,
        image=_image,
        number=_number,
        points=_points,
        cell=_cell,
        png=_png,
        budget=_budget,
    )
    text = (files("components.reporting") / "page.html").read_text(encoding="utf-8")
    main = results.models[results.main]
    return environment.from_string(text).render(
        title=title,
        synthetic=synthetic,
        results=results,
        main=main,
        cells=CELLS,
        cell_words=CELL_WORDS,
        threat=threat_words(main.get("threat", {})),
        attacks=attacks_of(results),
        partial=_partial(results),
        best=_best(results),
        checks=_checks(results),
        differences=differences,
        seeds=lines_of_seeds(results.seeds) if results.seeds else [],
        seeds_columns=COLUMNS,
        train_eps=train_eps,
        trials=_trials(results),
        costs=_costs(main),
        lineage=lineage,
        overview=plots.overview(results),
        eps_curves=plots.eps_curves(results),
        heat_map=plots.heat_map(results),
        per_class=plots.per_class(results),
        training=plots.training(results),
        modality_weights=plots.modality_weights(results),
    )


def threat_words(threat: dict[str, Any]) -> list[str]:
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


_MODALITY = {"rgb": "video", "skeleton": "skeleton"}
_UNIT = {"rgb": "colour value of each pixel", "skeleton": "coordinate of each joint"}


def _size(name: str, eps: float, norm: str) -> str:
    if name == "skeleton":
        return f"{eps:.3g} m ({100 * eps:.3g} cm)"
    return f"{255 * eps:.3g}/255 of the full range" if norm == "Linf" else f"{eps:.3g}"


def _budget(eps: dict[str, float]) -> str:
    """The form `8/255, 5 cm`, of Linf or L2 budgets alike."""
    words = {"rgb": lambda e: f"{255 * e:.3g}/255", "skeleton": lambda e: f"{100 * e:.3g} cm"}
    return ", ".join(words[name](value) for name, value in eps.items())


def _image(svg: str) -> str:
    """A data address of an SVG: every plot keeps its own names, apart from the page's."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _png(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _number(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "–" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}"


def _partial(results: Results) -> set[str]:
    """Attacks that only saw the clips which stood up to all attacks before them."""
    return {
        attack
        for summary in results.models.values()
        for attack, cells in summary["robust_acc"].items()
        if any(cell.get("scope") == "standing" for cell in cells.values())
    }


def _best(results: Results) -> tuple[str, dict[str, Any]] | None:
    """The model that stands best when both are attacked, if it is not the main one."""

    def score(model: str) -> float:
        value = results.models[model]["worst"].get("both", {}).get("value")
        return -1.0 if value is None else float(value)

    best = max(results.models, key=score)  # the main model comes first and so wins a tie
    return None if best == results.main else (best, results.models[best]["worst"]["both"])


def _checks(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """Gradient-masking flags by check and model."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for model, summary in results.models.items():
        for flag in summary.get("flags", []):
            table.setdefault(flag["check"], {})[model] = flag
    return table


def _costs(summary: dict[str, Any]) -> list[dict[str, Any]]:
    table = (summary.get("cost") or {}).get("attacks", {})
    return [
        {"attack": attack, "cell": cell, **figures}
        for attack, cells in table.items()
        for cell, figures in cells.items()
    ]


def _trials(results: Results) -> dict[str, Any]:
    """The search's trials, best first, and which columns to show."""
    rows = results.trials
    if not rows:
        return {"columns": [], "rows": [], "total": 0, "pictures": {}}

    def score(row: dict[str, str]) -> tuple[float, float]:
        # The second rung decides; a trial without any score comes last.
        found = (row.get(name) for name in ("finalist_robust_acc", "robust_acc"))
        first, second = (float(value) if value else -1.0 for value in found)
        return -first, -second

    ordered = sorted(rows, key=score)[:SHOWN_TRIALS]
    columns = [c for c in rows[0] if c not in HIDDEN and any(row[c] for row in ordered)]
    many = sum(bool(row.get("robust_acc")) for row in rows) >= TELLING
    pictures = {n: p for n, p in results.pictures.items() if many or n == "pareto"}
    told = [{**row, "what": _what(row)} for row in ordered]
    return {"columns": columns, "rows": told, "total": len(rows), "pictures": pictures}


def _what(row: dict[str, str]) -> str:
    """What there is to say about a trial: how it ended, and whether it is one of note."""
    notes = {"winner": "winner", "default": "the defaults", "pareto": "on the front"}
    words = [word for name, word in notes.items() if row.get(name) == "True"]
    status = row.get("status", "completed")
    return ", ".join(words if status == "completed" else [*words, status])


def _cell(text: str) -> str:
    """A value of a CSV file, short: `0.0441237` becomes `0.0441`."""
    try:
        return text if text.isdigit() else f"{float(text):.4g}"
    except ValueError:
        return text
