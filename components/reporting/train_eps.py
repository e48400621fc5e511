"""Training eps against test eps: the curves of several trained models as one table per cell."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from components.attacks import CELLS
from components.evaluation.comparable import differences_in_terms
from components.evaluation.metrics import accuracy_of
from components.reporting.read import ReportError

MODALITIES = ("rgb", "skeleton")
Curves = Mapping[str, Mapping[str, Any]]


def train_eps_tables(curves: Curves) -> list[dict[str, Any]]:
    """One table per cell: `cell`, `test_eps` (by column: eps by modality) and `rows`.

    A row is `run`, `train_eps` by modality and `accuracy` by column, sorted by training eps. In the
    cell "both" the two budgets grow together. Empty unless two models differ in training eps.
    Raises ReportError when the models were not tested on the same terms (budgets, attack, clips).
    """
    # A model of the user's own may come without curves, or without a word on its training.
    known = {n: curve for n, curve in curves.items() if curve.get("eps") and curve.get("train_eps")}
    rows = sorted(known.items(), key=lambda item: (*_trained(item[1]), item[0]))
    if len({_trained(curve) for _, curve in rows}) < 2:
        return []
    first, one = rows[0]
    for run, curve in rows[1:]:
        if terms := differences_in_terms(one, curve):
            raise ReportError(
                f"{first} and {run} were tested with another {' and '.join(terms)}; evaluate them "
                "on the same clips, with the same threat and evaluate settings"
            )
    touched = [m for m in MODALITIES if one["eps"].get(m)]
    tables = []
    for cell in CELLS:
        inside = MODALITIES if cell == "both" else (cell,)
        if not set(inside) <= set(touched):
            continue
        columns = [{m: one["eps"][m][i] for m in inside} for i in range(len(one["factors"]))]
        tables.append(
            {
                "cell": cell,
                "test_eps": columns,
                "rows": [
                    {
                        "run": run,
                        "train_eps": dict(zip(MODALITIES, _trained(curve), strict=True)),
                        "accuracy": _accuracies(curve, cell),
                    }
                    for run, curve in rows
                ],
            }
        )
    return tables


def train_eps_csv(tables: list[dict[str, Any]]) -> str:
    """The tables as rows with a header line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["run", "train_eps_rgb", "train_eps_skeleton", "cell", "test_eps_rgb", "test_eps_skeleton"]
        + ["value", "low", "high", "n"]
    )
    for table in tables:
        for row in table["rows"]:
            for eps, found in zip(table["test_eps"], row["accuracy"], strict=True):
                writer.writerow(
                    [row["run"], *row["train_eps"].values(), table["cell"]]
                    + [eps.get(m, 0.0) for m in MODALITIES]
                    + [found[k] for k in ("value", "low", "high", "n")]
                )
    return text.getvalue()


def _trained(curve: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(float(curve["train_eps"][m]) for m in MODALITIES)


def _accuracies(curve: Mapping[str, Any], cell: str) -> list[dict[str, Any]]:
    if cell != "both":
        return list(curve[cell])
    clips = int(curve["clips"])
    diagonal = [curve["grid"][i][i] for i in range(len(curve["grid"]))]
    return [accuracy_of(round(value * clips), clips) for value in diagonal]
