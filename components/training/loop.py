"""The one training loop: plain torch, one row of metrics an epoch, the same for every method.

Each epoch is a function of the state it starts from and of (seed, epoch): the DDP wrapper is made
anew, batch statistics are averaged over workers at its end, and everything random is seeded by
position. So a run that is killed and resumed ends with the same bits as one never disturbed.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from components.attacks import ThreatModel
from components.batch import Batch
from components.config.train import TrainSection
from components.training import stacking
from components.training.averaging import (
    average_buffers,
    sum_over_workers,
    update_average,
    world_size,
)
from components.training.collapse import MAX_ROLLBACKS, collapsed, within_noise
from components.training.layout import channels_last_video
from components.training.parallel import has_unused, wrap
from components.training.phases import Phase, TrainData, of_the_streams, of_the_weights
from components.training.schedule import epoch_seed, seed_step
from components.training.state import TrainState, restore, snapshot
from components.training.step import NonFiniteLoss, TrainTarget, train_step
from components.training.sums import as_sums, averages_of, gradient_norms, mean_norms, probe
from components.training.validation import validate

PROBE_EVERY = 16  # steps between looks at clean training accuracy, where the method has none


@dataclass(frozen=True)
class WorkerContext:
    """Where a worker runs."""

    rank: int = 0
    device: torch.device = torch.device("cpu")


@dataclass(frozen=True)
class Progress:
    """Rank 0's sums of the running epoch, read only when somebody looks."""

    epoch: int
    epochs: int
    step: int
    steps: int
    sums: Tensor
    clips: int
    seconds: float


OnStep = Callable[[Progress], None]


def train_epochs(
    state: TrainState,
    data: TrainData,
    train: TrainSection,
    threat: ThreatModel,
    *,
    seed: int,
    worker: WorkerContext = WorkerContext(),  # noqa: B008 (frozen)
    on_step: OnStep | None = None,
) -> Iterator[dict[str, Any]]:
    """Train from where `state` stands to the last epoch, yielding one row after each.

    That is `train.epochs` of the streams, and where the fusion leaves its weights to held-out clips
    `train.stack_epochs` more of those (`stacking.py`).
    `threat` is the evaluation's threat model, under which validation is attacked; the training
    attack has its own eps in `train.attack`. When a row is yielded, `state` is what to save.
    Raises NonFiniteLoss with the clips of the step.
    """
    model = state.model
    position = state.position
    last = train.epochs + stacking.epochs_of(state.model, train)
    unused = False
    if world_size() > 1 and position.epoch < train.epochs:
        stacking.choose_parameters(state.model, held_out=False)
        first, _ = next(iter(data.train(position.epoch)))
        unused = has_unused(state.model, first.to(worker.device), train)
    while position.epoch < last:
        held_out = position.epoch >= train.epochs
        started = time.perf_counter()
        before = None
        if held_out:
            if position.epoch == train.epochs:
                stacking.begin(state)
            phase = of_the_weights(data, train, threat, position.epoch)
        else:
            if train.rollback and train.method != "natural":
                before = snapshot(state)
            phase = of_the_streams(data, train, position, seed)
        stacking.choose_parameters(state.model, held_out)
        row = _epoch(state, model, phase, seed, worker, on_step, last, unused and not held_out)
        row["train_seconds"] = time.perf_counter() - started
        row["clips_per_s"] = row.pop("clips") / row["train_seconds"]
        row |= validate(
            state.deployed,
            data.validation(),
            threat,
            steps=train.val_steps,
            seed=seed,
            by_clean=train.method == "natural",
        )
        row["rolled_back"] = before is not None and _roll_back(state, before, row)
        row["seconds"] = time.perf_counter() - started
        row["finished_at"] = time.time()
        _advance(state, row, natural=train.method == "natural")
        yield row


def _epoch(
    state: TrainState,
    model: nn.Module,
    phase: Phase,
    seed: int,
    worker: WorkerContext,
    on_step: OnStep | None,
    epochs: int,
    unused: bool,
) -> dict[str, Any]:
    epoch = state.position.epoch
    target = TrainTarget(model, wrap(model, worker.device, unused), state.optimizer)
    model.train(phase.learning)
    sums = torch.zeros(6, dtype=torch.float64, device=worker.device)
    norms = torch.zeros(3, dtype=torch.float64, device=worker.device)
    clips, started, lr = 0, time.perf_counter(), 0.0
    for step, (batch, global_clips) in enumerate(phase.batches):
        batch = _to_device(batch, worker.device)
        lr = _set_lr(state, phase.lr(step))
        seed_step(seed, epoch, step, worker.rank)
        if phase.probe and step % PROBE_EVERY == 0:
            sums[4:6] += probe(model, batch)
        try:
            result = train_step(
                target,
                batch,
                phase.threat(step),
                phase.settings,
                method=phase.method,
                seed=epoch_seed(seed, epoch),
                rollbacks=state.position.boost,
                loss_divisor=global_clips / world_size(),
            )
        except NonFiniteLoss as error:
            error.epoch, error.step = epoch + 1, step + 1
            raise
        state.position.updates += 1
        if state.average is not None:
            update_average(state.average, state.model, phase.decay, state.position.updates)
        if phase.learning and step % PROBE_EVERY == 0:
            norms += gradient_norms(state.model, norms)
        sums += as_sums(result, sums)
        clips += global_clips
        if on_step is not None:
            passed = time.perf_counter() - started
            on_step(Progress(epoch + 1, epochs, step + 1, phase.steps, sums, clips, passed))
    average_buffers(state.model)
    if state.average is not None:
        for mine, theirs in zip(state.average.buffers(), state.model.buffers(), strict=True):
            mine.copy_(theirs)
    return {
        "epoch": epoch + 1,
        "epochs": epochs,
        **averages_of(sum_over_workers(sums).tolist()),
        "clips": clips,
        "lr": lr,
        "rgb_eps": phase.full.rgb.eps if phase.full.rgb else 0.0,
        "skeleton_eps": phase.full.skeleton.eps if phase.full.skeleton else 0.0,
        "steps": phase.attack_steps,
        **mean_norms(sum_over_workers(norms).tolist()),
    }


def _roll_back(state: TrainState, before: dict[str, Any], row: dict[str, Any]) -> bool:
    """On a collapse: put back the weights of the epoch's start and double the attack's steps."""
    position = state.position
    if position.boost >= MAX_ROLLBACKS or not collapsed(
        row["val_robust_acc_worst"],
        position.best,
        row["val_clips"],
        row["train_robust_acc"] or 0.0,
        position.train_best,
    ):
        return False
    restore(state, before)
    position.boost += 1
    return True


def _advance(state: TrainState, row: dict[str, Any], natural: bool) -> None:
    """Move the position on by one epoch; `rank`, by which checkpoints are kept, joins the row.

    The epochs that the rule of one standard error keeps rank by their number, above all others,
    so that the last of them is the best; `score` stays the accuracy that it is.
    """
    position = state.position
    position.epoch = row["epoch"]
    row["rank"] = row["score"]
    if not row["rolled_back"]:
        worst = row["val_clean_acc"] if natural else row["val_robust_acc_worst"]
        if within_noise(row["score"], position.best_score, row["val_clips"]):
            position.best_score = max(position.best_score, row["score"])
            position.best_epoch = row["epoch"]
            row["rank"] = 1.0 + row["epoch"]
        position.best = max(position.best, worst)
        position.train_best = max(position.train_best, row["train_robust_acc"] or 0.0)
    position.history.append(dict(row))


def _set_lr(state: TrainState, lr: float) -> float:
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    return lr


def _to_device(batch: Batch, device: torch.device) -> Batch:
    batch = batch.to(device, non_blocking=True)
    # GPU convolutions in bf16 prefer it; on CPUs the small nets choose their own layout.
    return channels_last_video(batch) if device.type == "cuda" else batch
