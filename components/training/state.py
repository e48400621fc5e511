"""All that a run needs to go on as if it had never stopped: tensors plus a page of JSON.

Learning rate, eps, order of clips, modality draws and dropout are functions of (seed, epoch,
step), so "sampler position" and "random state" are the epoch and step numbers kept here.
"""

import copy
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from components.checkpoint import (
    CheckpointError,
    read_tensors,
    save_checkpoint,
    save_tensors,
    to_json,
)
from components.training.averaging import make_average

TENSORS = "state.safetensors"
POSITION = "state.json"
FORMAT = 1
# Adversarial training wants more decay than natural training does: 5e-4 in place of 2e-4 was the
# largest single gain in Pang et al., "Bag of Tricks for Adversarial Training" (arXiv 2010.00467).
WEIGHT_DECAY = 5e-4


@dataclass
class Position:
    """Where a run stands, in plain numbers.

    epoch:       epochs finished
    updates:     optimiser steps taken
    boost:       rollbacks so far; each one doubles the attack's steps
    best:        best worst-case validation robust accuracy so far
    best_score, best_epoch: highest score so far, and the epoch kept as best (`within_noise`)
    train_best:  best accuracy on the training attack's examples
    history:     one row an epoch
    """

    epoch: int = 0
    updates: int = 0
    boost: int = 0
    best: float = 0.0
    best_score: float = -1.0
    best_epoch: int = 0
    train_best: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class TrainState:
    """Model, optimiser, averaged weights (None = off) and position; everything that resumes."""

    model: nn.Module
    optimizer: Optimizer
    average: nn.Module | None
    position: Position

    @property
    def deployed(self) -> nn.Module:
        """What is validated and kept as the run's model: the averaged weights where there are."""
        return self.average if self.average is not None else self.model


def new_state(
    model: nn.Module, *, lr: float, ema: float, weight_decay: float = WEIGHT_DECAY
) -> TrainState:
    """A fresh state: AdamW without decay on biases and norm scales (1-d parameters)."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    return TrainState(model, optimizer, make_average(model) if ema else None, Position())


def snapshot(state: TrainState) -> dict[str, Any]:
    """A copy of the state in memory, to roll back to."""
    return {
        "model": copy.deepcopy(state.model.state_dict()),
        "optimizer": copy.deepcopy(state.optimizer.state_dict()),
        "average": copy.deepcopy(state.average.state_dict()) if state.average else None,
    }


def restore(state: TrainState, saved: dict[str, Any]) -> None:
    """Put a `snapshot` back; the position stays."""
    state.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))
    if state.average is not None:
        state.average.load_state_dict(saved["average"])


def save_state(folder: Path, state: TrainState, config: dict[str, Any]) -> None:
    """Write `folder`: the deployed model as a checkpoint, and beside it the training state."""
    save_checkpoint(folder, state.deployed, config)
    tensors = {f"model.{name}": t for name, t in state.model.state_dict().items()}
    if state.average is not None:
        tensors |= {f"average.{name}": t for name, t in state.average.state_dict().items()}
    optimizer = state.optimizer.state_dict()
    for index, slots in optimizer["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
    page = {"format": FORMAT, "groups": _plain(optimizer["param_groups"])}
    page["position"] = asdict(state.position)
    (folder / TENSORS).write_bytes(save_tensors(tensors))
    (folder / POSITION).write_bytes(to_json(page))


def load_state(folder: Path, state: TrainState) -> None:
    """Fill `state` from a folder of `save_state`. Raises CheckpointError when it does not fit."""
    try:
        page = json.loads((folder / POSITION).read_bytes())
        tensors = read_tensors((folder / TENSORS).read_bytes(), folder / TENSORS)
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{folder} holds no training state to resume from: {error}"
        ) from error
    if page.get("format") != FORMAT:
        raise CheckpointError(f"{folder / POSITION}: format {page.get('format')!r}, not {FORMAT}")
    try:
        state.model.load_state_dict(_under(tensors, "model."))
        if state.average is not None:
            state.average.load_state_dict(_under(tensors, "average."))
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "optimizer.").items():
            index, _, slot = name.partition(".")
            slots.setdefault(int(index), {})[slot] = value
        state.optimizer.load_state_dict({"state": slots, "param_groups": page["groups"]})
        state.position = Position(**page["position"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} does not fit this run's model: {error}") from error


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _plain(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: list(v) if isinstance(v, tuple) else v for k, v in g.items()} for g in groups]
