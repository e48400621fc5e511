"""Settings of the threat model: what the adversary may change, per modality."""

from dataclasses import dataclass
from typing import Literal

from components.config.base import Section, setting
from components.units import check_pixels


@dataclass(frozen=True)
class BudgetSection(Section):
    """Bound on one modality's perturbation; eps in [0, 1] pixels or in metres."""

    norm: Literal["Linf", "L2"] = setting("Linf", "norm of the perturbation")
    eps: float = setting(0.0, "largest perturbation", unit="pixels of [0, 1], or metres", ge=0)
    frames: int = setting(0, "at most this many frames may change; 0 = all", ge=0)


@dataclass(frozen=True)
class ThreatSection(Section):
    """The threat model of the evaluation. The search can never change it."""

    rgb: BudgetSection = BudgetSection(eps=8 / 255)
    skeleton: BudgetSection = BudgetSection(eps=0.05)
    bone_length: float = setting(
        0.0, "largest relative change of a bone, e.g. 0.1; 0 = no bound", ge=0, le=1
    )
    acceleration: float = setting(
        0.0,
        "largest change of a joint's acceleration; 0 = no bound",
        unit="metres per frame^2",
        ge=0,
        le=2,
    )

    def __post_init__(self) -> None:
        check_pixels("threat.rgb.eps", self.rgb.eps if self.rgb.norm == "Linf" else 0.0)


@dataclass(frozen=True)
class TrainAttackSection(Section):
    """The attack inside adversarial training."""

    rgb_eps: float = setting(8 / 255, "budget on the video", unit="pixels of [0, 1]", ge=0)
    skeleton_eps: float = setting(0.05, "budget on the joints", unit="metres", ge=0)
    steps: int = setting(2, "steps of PGD; many cheap epochs serve small sets best", ge=1)
    loss: Literal["ce", "soft_margin"] = setting(
        "ce",
        "what the attack climbs: cross-entropy, or the margin whatever the scale of the logits",
    )
    rel_alpha: float = setting(0.0, "alpha / eps; 0 = 2.5 / steps (Madry)", ge=0)
    modalities: Literal["rgb", "skeleton", "both", "mix"] = setting(
        "both", "what is attacked; mix draws one of the three for each step"
    )
    early_stop: bool = setting(False, "clips already fooled take no further step")

    def __post_init__(self) -> None:
        check_pixels("train.attack.rgb_eps", self.rgb_eps)
