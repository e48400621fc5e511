"""Puts figures, tables and plots into one HTML page that needs no other file."""

from typing import Any

from components.attacks import CELLS, MODALITIES
from components.reporting import plots
from components.reporting.html import render
from components.reporting.over_seeds import COLUMNS, lines_of_seeds
from components.reporting.read import Results
from components.reporting.table import attacks_of
from components.reporting.words import (
    CELL_WORDS,
    duration,
    threat_words,
    words_by_name,
)

SHOWN_TRIALS = 6
ATTACK = "pgd20"  # under which heads are shown alone: every suite has it
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
    gallery: dict[str, Any],
) -> str:
    """The page's HTML. `synthetic`: say at the top that nothing here was filmed; `gallery`: of
    `gallery_data`, {} without clips."""
    main = results.models[results.main]
    return render(
        "page.html",
        title=title,
        synthetic=synthetic,
        results=results,
        main=main,
        cells=CELLS,
        cell_words=CELL_WORDS,
        threat=threat_words(main.get("threat", {})),
        attacks=attacks_of(results),
        attack_words=words_by_name(results.models.values()),
        price=_price(results),
        gallery=gallery,
        partial=_partial(results),
        best=_best(results),
        checks=_checks(results),
        streams=_streams(results),
        streams_attack=words_by_name(results.models.values()).get(ATTACK, ATTACK),
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


def _price(results: Results) -> list[str]:
    """Sentences: what robustness costs in accuracy and in time."""
    main = results.models[results.main]
    lines = []
    clean = {m: s["clean_acc"]["value"] for m, s in results.models.items()}
    known = {model: value for model, value in clean.items() if value is not None}
    if len(known) > 1 and results.main in known:
        best = max(known, key=lambda model: known[model])
        less = 100 * (known[best] - known[results.main])
        if best == results.main:
            lines.append("Clean, none of the models compared here is more often right.")
        else:
            lines.append(f"On clean clips {best} is right {less:.1f} points more often.")
    training = results.training.get(results.main, {})
    if training.get("seconds") and training.get("epochs"):
        lines.append(
            f"Training took {duration(training['seconds'])} for {training['epochs']} epochs."
        )
    total = (main.get("cost") or {}).get("total")
    if total:
        lines.append(
            f"The attacks took {duration(total['seconds'])}: {total['forward']:,.0f} forward and "
            f"{total['backward']:,.0f} backward passes of clips."
        )
    return lines


def _streams(results: Results) -> dict[str, list[dict[str, Any]]]:
    """By model six figures, video and then skeleton: the head alone on clean clips and under the
    joint attack, and what exchanging the stream costs; {} where not known."""
    table = {}
    for model, summary in results.models.items():
        streams = summary.get("streams") or {}
        heads = streams.get("heads", {})
        if not streams:
            continue
        attacked = heads.get(ATTACK, {}).get(CELLS[-1], {})
        table[model] = [
            figure
            for m in MODALITIES
            for figure in (
                heads.get("clean", {}).get(m, {}),
                attacked.get(m, {}),
                _lost(streams.get("reliance", {}).get(m)),
            )
        ]
    return table


def _lost(reliance: dict[str, Any] | None) -> dict[str, Any]:
    return {} if reliance is None else {"lost": -reliance["value"]}


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
    shown = [{**row, "what": _what(row)} for row in ordered]
    return {"columns": columns, "rows": shown, "total": len(rows), "pictures": pictures}


def _what(row: dict[str, str]) -> str:
    """What there is to say about a trial: how it ended, and whether it is one of note."""
    notes = {"winner": "winner", "default": "the defaults", "pareto": "on the front"}
    words = [word for name, word in notes.items() if row.get(name) == "True"]
    status = row.get("status", "completed")
    return ", ".join(words if status == "completed" else [*words, status])
