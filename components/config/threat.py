"""Settings of the threat model: what the adversary may change, per modality."""

from typing import Literal

from pydantic import Field

from components.config.base import Fraction, Section


class BudgetSection(Section):
    """Bound on one modality's perturbation; eps in [0,1] pixels or in metres."""

    norm: Literal["Linf", "L2"] = "Linf"
    eps: Fraction = Field(ge=0)
    frames: int = Field(0, ge=0, description="at most this many frames may change; 0 = all")


class ThreatSection(Section):
    """The threat model of the evaluation. The search can never change it."""

    rgb: BudgetSection = BudgetSection(eps=8 / 255)
    skeleton: BudgetSection = BudgetSection(eps=0.05)
    bone_length: float = Field(0.0, ge=0, description="largest relative change; 0 = no bound")
    acceleration: float = Field(
        0.0, ge=0, description="largest change, metres per frame^2; 0 = no bound"
    )


class TrainAttackSection(Section):
    """The attack inside adversarial training."""

    rgb_eps: Fraction = Field(8 / 255, ge=0)
    skeleton_eps: Fraction = Field(0.05, ge=0)
    steps: int = Field(5, ge=1)
    first_steps: int = Field(0, ge=0, description="steps in the first epoch; 0 = `steps`")
    ramp: int = Field(0, ge=0, description="epochs over which first_steps grows to steps")
    rel_alpha: float = Field(0.0, ge=0, description="alpha / eps; 0 = 2.5 / steps (Madry)")
    random_start: bool = True
    modalities: Literal["rgb", "skeleton", "both", "mix"] = "both"
    mix: tuple[float, float, float] = (0.25, 0.25, 0.5)
    early_stop: bool = Field(False, description="clips already fooled take no further step")
    heads: float = Field(
        0.0, ge=0, description="weight of the heads' loss in what the PGD of pgd_at and mart climbs"
    )
