"""Robust accuracy against eps: one curve per modality, and the eps_rgb x eps_skeleton heat map.

Made with a short `margin_pgd` on a fixed subset, so these are upper bounds beside the suite's
figures.
A clip that falls at some budget falls at any larger one, which contains the smaller; so only the
clips that stand at the neighbouring smaller budgets are attacked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from components.attacks import ThreatModel
from components.batch import Batch
from components.errors import UserError
from components.evaluation.cascade import run_cascade
from components.evaluation.metrics import accuracy_of
from components.evaluation.suite import Entry

# Multiples of each eps: nothing, half, the budget itself, and twice it, where a model that only
# hides its gradients often still stands.
FACTORS = (0.0, 0.5, 1.0, 2.0)
ATTACK = Entry("margin_pgd10", "margin_pgd", {"steps": 4, "n_targets": 2, "target_steps": 3})


def standing_grid(
    model: nn.Module, clips: Batch, threat: ThreatModel, factors: Sequence[float], *, seed: int
) -> list[list[int]]:
    """Clips right at eps_rgb x factors[i] and eps_skeleton x factors[j], [i][j].

    factors rise from 0. A modality without a budget has one row or column, for factor 0.
    """
    check_factors(factors)
    rows = factors if threat.rgb is not None else factors[:1]
    columns = factors if threat.skeleton is not None else factors[:1]
    clean = run_cascade(model, clips, [], threat, seed=seed).clean.scores.correct
    grid: list[list[torch.Tensor]] = []
    for i, rgb in enumerate(rows):
        grid.append([])
        for j, skeleton in enumerate(columns):
            standing = clean.clone()
            if i:
                standing &= grid[i - 1][j]
            if j:
                standing &= grid[i][j - 1]
            cell = "both" if i and j else "rgb" if i else "skeleton"
            if (i or j) and bool(standing.any()):
                index = standing.nonzero().flatten()
                budget = threat.scaled(rgb=rgb, skeleton=skeleton).cell(cell)
                found = run_cascade(
                    model, clips.select(index), [ATTACK], budget, seed=seed, cells=(cell,)
                )
                standing[index] = found.standing[cell]
            grid[i].append(standing)
    return [[int(standing.sum()) for standing in row] for row in grid]


def check_factors(factors: Sequence[float]) -> None:
    """ValueError unless they start at 0 and rise."""
    rising = all(a < b for a, b in zip(factors, factors[1:], strict=False))
    if len(factors) < 2 or factors[0] != 0 or not rising:
        raise UserError(
            f"factors are multiples of eps that start at 0 and rise; got {list(factors)}"
        )


def curves(
    grids: Sequence[Sequence[Sequence[int]]],
    clips: int,
    threat: ThreatModel,
    factors: Sequence[float],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The JSON of one model from the grids of its chunks, `clips` in all."""
    total = [[sum(cell) for cell in zip(*rows, strict=True)] for rows in zip(*grids, strict=True)]
    table = [[accuracy_of(right, clips) for right in row] for row in total]
    budgets = threat.budgets
    eps = {name: [f * budget.eps for f in factors] for name, budget in budgets.items()}
    return {
        **about,
        "clips": clips,
        "attack": {"name": ATTACK.attack, **ATTACK.parameters},
        "factors": list(factors),
        "eps": eps,
        "norm": {name: budget.norm for name, budget in budgets.items()},
        "rgb": [row[0] for row in table] if "rgb" in budgets else [],
        "skeleton": table[0] if "skeleton" in budgets else [],
        "grid": [[cell["value"] for cell in row] for row in table],
    }
