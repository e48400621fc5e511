"""What one training step does, as plain values: the settings that `step` and `methods` need."""

from dataclasses import dataclass

from components.errors import UserError

NAMES = ("natural", "pgd_at", "trades", "mart", "fgsm_rs", "nfgsm", "free")
SINGLE_STEP = ("fgsm_rs", "nfgsm")


@dataclass(frozen=True)
class Recipe:
    """Values of one step; the loop sets what changes from epoch to epoch (steps, boost).

    steps, rel_alpha: attack steps (Free: passes over each batch), and their length over eps
                      (0 = the method's own choice)
    early_stop:       clips that are already fooled take no further step
    heads:            weight of the per-modality heads' loss in what a PGD attack climbs
    boost:            rollbacks after catastrophic overfitting; each doubles the steps
    """

    method: str = "pgd_at"
    steps: int = 5
    rel_alpha: float = 0.0
    random_start: bool = True
    early_stop: bool = False
    heads: float = 0.0
    boost: int = 0
    beta: float = 6.0
    label_smoothing: float = 0.0
    aux_weight: float = 0.5
    consistency: float = 0.0
    awp: float = 0.0
    grad_clip: float = 1.0
    accumulate: int = 1
    amp: str = "fp32"

    def __post_init__(self) -> None:
        if self.method not in NAMES:
            raise UserError(f"train.method must be one of {', '.join(NAMES)}; got {self.method!r}")
        if self.early_stop and self.method == "trades":
            raise UserError(
                "train.attack.early_stop stops at misclassified clips, and the attack of TRADES "
                "does not look for those; switch it off, or train with pgd_at or mart"
            )

    @property
    def attack_steps(self) -> int:
        """Steps of the training attack, doubled by every rollback."""
        return (1 if self.method in SINGLE_STEP else self.steps) * 2**self.boost
