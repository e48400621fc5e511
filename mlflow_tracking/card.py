"""The model card: what a version was made from, what it withstands, and what it is not for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from components.config import Config, to_dict
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
        name=config.register.name,
        model=model,
        training={
            "fusion": checkpoint["model"].get("fusion", "unknown"),
            "method": config.train.method,
        },
        classes=classes,
        data={key: _plain(value) for key, value in data.items()},
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


def _plain(value: Any) -> Any:
    return "; ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def headlines(summary: Mapping[str, Any]) -> str:
    """Clean and worst-case accuracy as a small Markdown table: the description of a run."""
    rows = [row for row in accuracies(summary) if row["what"].startswith(("clean", "worst"))]
    lines = [f"| {row['what']} | {row['value']} | {row['interval']} |" for row in rows]
    return "\n".join(
        [
            f"{summary['clips']} test clips, suite `{summary.get('suite', '')}`; gradient-masking "
            f"checks: {summary.get('flagged', 'not run')}.",
            "",
            "| | accuracy | 95 % interval |",
            "|---|--:|---|",
            *lines,
        ]
    )


def _row(what: str, accuracy: Mapping[str, Any]) -> dict[str, str]:
    if accuracy["value"] is None:
        return {"what": what, "value": "no clips", "interval": ""}
    low, high = (f"{100 * accuracy[end]:.1f}" for end in ("low", "high"))
    return {
        "what": what,
        "value": f"{100 * accuracy['value']:.1f} %",
        "interval": f"{low} - {high}",
    }


def _eps(modality: str, eps: float) -> str:
    """As papers write it: 8/255 of a pixel's range, 0.05 metres."""
    levels = round(eps * 255)
    whole = modality == "rgb" and levels and abs(eps * 255 - levels) < 1e-9
    return f"{levels}/255" if whole else f"{eps:.5g}"


def _budgets(config: Config, unit: str) -> list[dict[str, Any]]:
    budgets = to_dict(config.threat)
    return [
        {
            "modality": modality,
            "norm": budget["norm"],
            "eps": _eps(modality, budget["eps"]),
            "unit": UNITS.get(modality, unit),
        }
        for modality, budget in budgets.items()
        if isinstance(budget, dict) and "eps" in budget
    ]
