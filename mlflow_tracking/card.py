"""The model card: what a version was made from, what it withstands, and what it is not for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from components.config import Config
from mlflow_tracking.gate import Decision, raised_flags

TEMPLATE = Path(__file__).with_name("card.md")
UNITS = {"rgb": "pixels in [0, 1]"}


def render(
    config: Config,
    *,
    model: str,
    checkpoint: Mapping[str, Any],
    classes: Sequence[str],
    data: Mapping[str, Any],
    summary: Mapping[str, Any],
    decision: Decision,
    lineage: Mapping[str, Any],
) -> str:
    """The card as Markdown. `data` is what `components.datasets.describe` says of the split."""
    template = jinja2.Template(TEMPLATE.read_text(), undefined=jinja2.StrictUndefined)
    return template.render(
        name=config.register_.name,
        model=model,
        training={
            "fusion": checkpoint["model"].get("fusion", "unknown"),
            "method": config.train.method,
        },
        classes=classes,
        data=data,
        threat=list(_budgets(config, str(data["unit"]))),
        summary=summary,
        suite=summary.get("suite", config.evaluate.suite),
        table=accuracies(summary),
        flags=raised_flags(summary),
        decision=decision,
        lineage={k: v for k, v in lineage.items() if v is not None},
        input=checkpoint["model"],
    )


def accuracies(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of the results table: clean, worst case, then every attack, by cell."""
    rows = [_row("clean", summary["clean_acc"])]
    rows += [_row(f"worst case, {cell}", acc) for cell, acc in summary.get("worst", {}).items()]
    for attack, cells in summary.get("robust_acc", {}).items():
        rows += [_row(f"{attack}, {cell}", accuracy) for cell, accuracy in cells.items()]
    return rows


def _row(what: str, accuracy: Mapping[str, Any]) -> dict[str, str]:
    if accuracy["value"] is None:
        return {"what": what, "value": "no clips", "interval": ""}
    low, high = (f"{100 * accuracy[end]:.1f}" for end in ("low", "high"))
    return {
        "what": what,
        "value": f"{100 * accuracy['value']:.1f} %",
        "interval": f"{low} - {high}",
    }


def _budgets(config: Config, unit: str) -> list[dict[str, Any]]:
    budgets = config.threat.model_dump(mode="json")
    return [
        {
            "modality": modality,
            "norm": budget["norm"],
            "eps": f"{budget['eps']:.5g}",
            "unit": UNITS.get(modality, unit),
        }
        for modality, budget in budgets.items()
        if isinstance(budget, dict) and "eps" in budget
    ]
