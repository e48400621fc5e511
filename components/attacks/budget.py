"""The bound on one modality's perturbation: norm, eps, bounds of the values, frames."""

from dataclasses import dataclass
from typing import Literal

from components.errors import UserError

Norm = Literal["Linf", "L2"]


@dataclass(frozen=True)
class Budget:
    """Bound on one modality's perturbation.

    norm, eps: at most `eps` in that norm, per clip; pixels are in [0, 1], joints in metres
    low, high: bounds of the perturbed values themselves; None = unbounded
    frames:    at most this many frames of a clip may differ; None = all
    """

    norm: Norm
    eps: float
    low: float | None = None
    high: float | None = None
    frames: int | None = None

    def __post_init__(self) -> None:
        if self.norm not in ("Linf", "L2"):
            raise UserError(f"norm must be 'Linf' or 'L2', got {self.norm!r}")
        if not 0.0 <= self.eps < float("inf"):
            raise UserError(f"eps must be finite and not negative, got {self.eps}")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise UserError(f"bounds must have low < high, got [{self.low}, {self.high}]")
        if self.frames is not None and self.frames < 1:
            raise UserError(f"frames must be at least 1 (or None for all), got {self.frames}")
