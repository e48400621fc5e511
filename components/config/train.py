"""Settings of training and of the cluster it runs on."""

from typing import Literal

from pydantic import Field

from components.config.base import Section
from components.config.threat import TrainAttackSection

MethodName = Literal["natural", "pgd_at", "trades", "mart", "fgsm_rs", "nfgsm", "free"]


class AugmentSection(Section):
    """Paired augmentation: one shared decision for both streams."""

    mirror: float = Field(0.0, ge=0, le=1, description="probability of a left-right mirror")
    temporal_crop: float = Field(0.7, gt=0, le=1, description="smallest share of the clip kept")
    shift: float = Field(0.08, ge=0, description="largest video shift, share of the side")
    rotate: float = Field(0.3, ge=0, description="largest skeleton rotation about y, radians")
    scale: float = Field(0.1, ge=0, description="largest relative change of skeleton size")


class TrainSection(Section):
    """One training run."""

    method: MethodName = "pgd_at"
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(32, ge=1, description="clips per optimiser step over all workers")
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["cosine", "one_cycle", "constant"] = "one_cycle"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    ema: float = Field(0.0, ge=0, lt=1, description="decay of averaged weights; 0 = off")
    awp: float = Field(0.0, ge=0, description="adversarial weight perturbation, relative size")
    beta: float = Field(6.0, ge=0, description="weight of the robust term in TRADES and MART")
    aux_weight: float = Field(0.5, ge=0, description="weight of the per-modality heads' loss")
    consistency: float = Field(0.0, ge=0, description="clean/adversarial modality-weight term")
    grad_clip: float = Field(1.0, ge=0, description="largest gradient norm; 0 = off")
    accumulate: int = Field(1, ge=1)
    amp: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    channels_last: bool = False
    attack: TrainAttackSection = TrainAttackSection()
    augment: AugmentSection = AugmentSection()
    val_steps: int = Field(5, ge=1, description="PGD steps of the validation after each epoch")
    val_clips: int = Field(0, ge=0, description="validation clips attacked; 0 = all")
    eps_warmup: int = Field(0, ge=0, description="epochs over which eps grows to its full size")
    rollback: bool = Field(True, description="roll back when catastrophic overfitting shows")
    keep_every: int = Field(0, ge=0, description="keep every n-th epoch's checkpoint; 0 = none")
    use_tuned: bool = Field(True, description="start from the tune stage's best parameters")
    models: tuple[str, ...] = ("amr", "mmtm", "concat")


class RaySection(Section):
    """The Ray cluster and the workers of one training run."""

    address: str = Field("", description="empty = start a local Ray; else a cluster's address")
    workers: int = Field(2, ge=1)
    max_workers: int = Field(0, ge=0, description="elastic upper bound; 0 = exactly `workers`")
    cpus_per_worker: float = Field(1.0, gt=0)
    gpus_per_worker: float = Field(0.0, ge=0)
    threads_per_worker: int = Field(1, ge=1)
    max_failures: int = Field(3, ge=-1)
    storage: str = Field("", description="run storage every node sees; empty = local artifacts")
