"""Settings of training and of the cluster it runs on."""

from dataclasses import dataclass
from typing import Literal

from components.config.base import Section, setting
from components.config.threat import TrainAttackSection
from components.errors import UserError


@dataclass(frozen=True)
class TrainSection(Section):
    """One training run."""

    method: str = setting(
        "pgd_at", "natural, pgd_at, trades, mart, fgsm_rs, nfgsm or free (docs/training.md)"
    )
    epochs: int = setting(19, "passes over the training clips", ge=1)
    batch_size: int = setting(16, "clips of one optimiser step over all workers", ge=1)
    lr: float = setting(2e-3, "peak learning rate", gt=0)
    ema: float = setting(0.0, "decay of averaged weights; 0 = off", ge=0, lt=1)
    aux_weight: float = setting(0.5, "weight of the per-modality heads' loss", ge=0)
    accumulate: int = setting(1, "parts of a batch that go one after the other", ge=1)
    amp: Literal["fp32", "bf16"] = setting("fp32", "precision of the forward passes")
    attack: TrainAttackSection = TrainAttackSection()
    augment: bool = setting(True, "draw a crop in time, a shift and a turn for each training clip")
    val_steps: int = setting(3, "steps of `margin_pgd` in the validation after each epoch", ge=1)
    val_clips: int = setting(
        48, "validation clips attacked, by training, trials and finalists alike; 0 = all", ge=0
    )
    ramp: float = setting(
        0.6, "share of the epochs over which eps grows to its full size", ge=0, le=1
    )
    stack_epochs: int = setting(
        16, "passes over the validation clips that then fit the fusion's weights", ge=0
    )
    rollback: bool = setting(True, "roll back when catastrophic overfitting shows")

    def __post_init__(self) -> None:
        if self.attack.loss != "ce" and self.method not in ("pgd_at", "mart"):
            raise UserError(
                f"train.attack.loss={self.attack.loss} is for pgd_at and mart; "
                f"{self.method} says itself what its attack climbs"
            )
        if self.attack.early_stop and self.method == "trades":
            raise UserError(
                "train.attack.early_stop stops at misclassified clips, and the attack of TRADES "
                "does not look for those; switch it off, or train with pgd_at or mart"
            )


@dataclass(frozen=True)
class RaySection(Section):
    """The Ray cluster and the workers of one training run."""

    address: str = setting("", "a cluster's address; empty = start a local Ray")
    tasks: int = setting(0, "tasks of a stage side by side; 0 = one per CPU", ge=0)
    workers: int = setting(2, "training workers", ge=1)
    max_workers: int = setting(0, "elastic upper bound; 0 = exactly `workers`", ge=0)
    cpus_per_worker: float = setting(1.0, "CPUs, and torch threads, of each training worker", gt=0)
    gpus_per_worker: float = setting(0.0, "GPUs of each training worker", ge=0)
    storage: str = setting("", "run storage that every node sees; empty = artifacts/runs")
