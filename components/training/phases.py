"""The two parts of a run, epoch by epoch: first the streams, then the weights between them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from components.attacks import Budget, ThreatModel
from components.batch import Batch
from components.config.threat import TrainAttackSection
from components.config.train import TrainSection
from components.training import stacking
from components.training.methods import Method, method_of
from components.training.schedule import draw_cell, eps_factor, lr_factor
from components.training.state import Position


class TrainData(Protocol):
    """This worker's share of the clips."""

    def steps(self) -> int:
        """Optimiser steps of one epoch, the same on every worker."""

    def train(self, epoch: int) -> Iterable[tuple[Batch, int]]:
        """This worker's part of each global batch, and the clips of the whole global batch."""

    def validation(self) -> Iterable[Batch]:
        """This worker's part of the validation clips."""

    def held_out_steps(self) -> int:
        """Optimiser steps of one pass over all validation clips, the same on every worker."""

    def held_out(self, epoch: int) -> Iterable[tuple[Batch, int]]:
        """As `train`, of all validation clips, unchanged, in another order each epoch."""


@dataclass(frozen=True)
class Phase:
    """One epoch: which clips, attacked how, teach which parameters at which rate.

    full: the budgets of this epoch; threat: those of a step
    learning: modules are in training mode (dropout, batch statistics)
    decay: of the averaged weights; 0 = they are the model's
    """

    method: Method
    settings: TrainSection
    batches: Iterable[tuple[Batch, int]]
    steps: int
    full: ThreatModel
    threat: Callable[[int], ThreatModel]
    lr: Callable[[int], float]
    learning: bool
    decay: float
    probe: bool = False
    attack_steps: int = 0


def of_the_streams(data: TrainData, train: TrainSection, position: Position, seed: int) -> Phase:
    epoch, steps = position.epoch, data.steps()
    full = training_threat(train.attack, eps_factor(epoch, train.epochs, train.ramp))
    method = method_of(train.method)
    return Phase(
        method,
        train,
        data.train(epoch),
        steps,
        full,
        threat=lambda step: full.cell(draw_cell(train.attack.modalities, seed, epoch, step)),
        lr=lambda step: train.lr * lr_factor((epoch + step / steps) / train.epochs),
        learning=True,
        decay=train.ema,
        probe=train.method not in ("natural", "trades", "mart"),
        attack_steps=method.attack_steps(train, position.boost),
    )


def of_the_weights(data: TrainData, train: TrainSection, threat: ThreatModel, epoch: int) -> Phase:
    steps, done = data.held_out_steps(), epoch - train.epochs
    natural = train.method == "natural"
    return Phase(
        stacking.METHOD,
        stacking.settings_of(train),
        data.held_out(epoch),
        steps,
        ThreatModel() if natural else threat,
        threat=lambda step: stacking.threat_of_step(threat, done * steps + step, natural),
        lr=lambda step: stacking.lr((done + step / steps) / train.stack_epochs),
        learning=False,
        decay=0.0,
        attack_steps=0 if natural else stacking.STEPS,
    )


def training_threat(attack: TrainAttackSection, factor: float = 1.0) -> ThreatModel:
    """The budgets of the training attack, Linf in both modalities."""
    return ThreatModel(
        rgb=Budget("Linf", attack.rgb_eps * factor),
        skeleton=Budget("Linf", attack.skeleton_eps * factor),
    )
