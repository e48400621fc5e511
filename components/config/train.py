"""Settings of training and of the cluster it runs on."""

from dataclasses import dataclass
from typing import Literal

from components.config.base import Section, setting
from components.config.threat import TrainAttackSection
from components.errors import UserError


@dataclass(frozen=True)
class AugmentSection(Section):
    """Paired augmentation: one shared decision for both streams."""

    mirror: float = setting(0.0, "probability of a left-right mirror", ge=0, le=1)
    temporal_crop: float = setting(0.7, "smallest share of the clip kept", gt=0, le=1)
    shift: float = setting(0.08, "largest video shift, as a share of the side", ge=0)
    rotate: float = setting(0.3, "largest skeleton rotation about y", unit="radians", ge=0)
    scale: float = setting(0.1, "largest relative change of skeleton size", ge=0)


@dataclass(frozen=True)
class TrainSection(Section):
    """One training run."""

    method: str = setting(
        "pgd_at", "natural, pgd_at, trades, mart, fgsm_rs, nfgsm or free (docs/training.md)"
    )
    epochs: int = setting(19, "passes over the training clips", ge=1)
    batch_size: int = setting(16, "clips of one optimiser step over all workers", ge=1)
    lr: float = setting(2e-3, "peak learning rate", gt=0)
    weight_decay: float = setting(5e-4, "AdamW's decay of weight matrices", ge=0)
    schedule: Literal["cosine", "one_cycle", "constant"] = setting(
        "one_cycle", "of the learning rate"
    )
    label_smoothing: float = setting(0.0, "probability spread over the other classes", ge=0, lt=1)
    ema: float = setting(0.0, "decay of averaged weights; 0 = off", ge=0, lt=1)
    awp: float = setting(0.0, "adversarial weight perturbation, relative size", ge=0)
    beta: float = setting(6.0, "weight of the robust term in TRADES and MART", ge=0)
    aux_weight: float = setting(0.5, "weight of the per-modality heads' loss", ge=0)
    grad_clip: float = setting(1.0, "largest gradient norm; 0 = off", ge=0)
    accumulate: int = setting(1, "parts of a batch that go one after the other", ge=1)
    amp: Literal["fp32", "bf16"] = setting("fp32", "precision of the forward passes")
    compile: bool = setting(False, "torch.compile")
    attack: TrainAttackSection = TrainAttackSection()
    augment: AugmentSection = AugmentSection()
    val_steps: int = setting(3, "PGD steps of the validation after each epoch", ge=1)
    val_clips: int = setting(48, "validation clips attacked; 0 = all", ge=0)
    ramp: float = setting(
        0.6, "share of the epochs over which eps grows to its full size", ge=0, le=1
    )
    stack_epochs: int = setting(
        16, "passes over the validation clips that then fit the fusion's weights", ge=0
    )
    rollback: bool = setting(True, "roll back when catastrophic overfitting shows")

    def __post_init__(self) -> None:
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
    cpus_per_worker: float = setting(1.0, "CPUs, and threads, of each training worker", gt=0)
    gpus_per_worker: float = setting(0.0, "GPUs of each training worker", ge=0)
    threads_per_worker: int = setting(1, "torch threads of each worker", ge=1)
    max_failures: int = setting(3, "restarts of a run whose workers were lost; -1 = any", ge=-1)
    storage: str = setting("", "run storage that every node sees; empty = artifacts/runs")
