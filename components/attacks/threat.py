"""The threat model: what an adversary may change in each modality, and by how much.

Distances are taken per clip over the modality's whole tensor: Linf is the largest change of any
pixel or coordinate, L2 the root of the summed squares over all of them. What may not be touched
(an absent person, a modality without budget) must stay bit-equal to the clean clip.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from components.attacks.budget import Budget
from components.attacks.plausible import acceleration_change, bone_change
from components.attacks.region import TOLERANCE, Region
from components.batch import Batch
from components.errors import UserError

CELLS = ("rgb", "skeleton", "both")
MODALITIES = ("rgb", "skeleton")


@dataclass(frozen=True)
class ThreatModel:
    """What may be changed in each modality; None = that modality may not be touched.

    Video is held to [0, 1] unless its budget names other bounds; joints are unbounded.
    bone_length:  largest relative change of any bone's length in any frame (0.1 = 10 %)
    acceleration: largest change of any joint's acceleration, metres per frame^2
    """

    rgb: Budget | None = None
    skeleton: Budget | None = None
    bone_length: float | None = None
    acceleration: float | None = None

    def __post_init__(self) -> None:
        if self.rgb is not None:
            low = 0.0 if self.rgb.low is None else self.rgb.low
            high = 1.0 if self.rgb.high is None else self.rgb.high
            if self.rgb.norm == "Linf" and self.rgb.eps > high - low:
                raise UserError(
                    f"eps={self.rgb.eps:g} for pixels in [{low:g}, {high:g}] allows any picture; "
                    f"budgets are in these units: {self.rgb.eps:g}/255 was meant?"
                )
            object.__setattr__(self, "rgb", dataclasses.replace(self.rgb, low=low, high=high))
        for name in ("bone_length", "acceleration"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < float("inf"):
                raise UserError(f"{name} must be positive (or None for no bound), got {value}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "ThreatModel":
        """The `threat` section of params.yaml as plain values; there 0 stands for "no bound"."""
        budgets = {
            m: Budget(s["norm"], s["eps"], frames=s.get("frames") or None)
            for m in MODALITIES
            if (s := settings.get(m)) is not None
        }
        bounds = {name: settings.get(name) or None for name in ("bone_length", "acceleration")}
        return cls(**budgets, **bounds)  # type: ignore[arg-type]

    @property
    def budgets(self) -> dict[str, Budget]:
        """The budgets by modality, of those that may be touched."""
        both = {"rgb": self.rgb, "skeleton": self.skeleton}
        return {name: budget for name, budget in both.items() if budget is not None}

    def cell(self, name: str) -> "ThreatModel":
        """This threat restricted to one cell of the tables: "rgb", "skeleton" or "both".

        Raises ValueError for another name, or when a modality of the cell has no budget.
        """
        if name not in CELLS:
            raise UserError(f"cell must be one of {', '.join(CELLS)}; got {name!r}")
        wanted = MODALITIES if name == "both" else (name,)
        missing = [m for m in wanted if m not in self.budgets]
        if missing:
            raise UserError(f"cell {name!r} needs a budget for {missing[0]}; the threat has none")
        kept = {m: self.budgets[m] for m in wanted}
        return dataclasses.replace(self, rgb=kept.get("rgb"), skeleton=kept.get("skeleton"))

    def scaled(self, rgb: float = 1.0, skeleton: float = 1.0) -> "ThreatModel":
        """This threat with each eps multiplied: curves over eps, warm-up of the budget."""
        factors = {"rgb": rgb, "skeleton": skeleton}
        changed = {
            m: dataclasses.replace(b, eps=b.eps * factors[m]) for m, b in self.budgets.items()
        }
        return dataclasses.replace(self, **changed)  # type: ignore[arg-type]

    def region(self, clean: Batch, only: Mapping[str, Tensor] | None = None) -> Region:
        """The feasible set around these clips; `only` narrows what may change (bool masks)."""
        return Region(
            clean,
            self.budgets,
            only,
            bone_length=self.bone_length,
            acceleration=self.acceleration,
        )

    def project(self, clean: Batch, rgb: Tensor, skeleton: Tensor) -> tuple[Tensor, Tensor]:
        """A nearby feasible pair; what may not be touched comes back as the clean tensor.

        rgb [B,3,T,H,W], skeleton [B,3,S,V,M]; neither is changed in place.
        """
        region = self.region(clean)
        given = {"rgb": rgb, "skeleton": skeleton}
        adv = {m: given[m].detach().clone() for m in region.names}
        region.project_(adv, final=True)
        return adv.get("rgb", clean.rgb), adv.get("skeleton", clean.skeleton)

    def random_start(self, clean: Batch, seeds: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Clips drawn uniformly from the balls; `seeds` int64 [B, 2] per touched modality."""
        adv = self.region(clean).random_start(seeds)
        return adv.get("rgb", clean.rgb), adv.get("skeleton", clean.skeleton)

    def sizes(self, clean: Batch, adversarial: Batch) -> dict[str, Tensor]:
        """Size [B] of each touched modality's perturbation in its own norm."""
        found = {}
        for name, budget in self.budgets.items():
            delta = (getattr(adversarial, name) - getattr(clean, name)).flatten(1).double()
            order = float("inf") if budget.norm == "Linf" else 2
            found[name] = torch.linalg.vector_norm(delta, order, dim=1)
        return found

    def check(self, clean: Batch, adversarial: Batch) -> None:
        """Raise ValueError naming the clip when anything leaves budget, mask, bounds or labels."""
        if adversarial.clip_id != clean.clip_id or not torch.equal(adversarial.label, clean.label):
            raise UserError("an attack must return the same clips with the same labels")
        region = self.region(clean)
        for name in MODALITIES:
            before, after = getattr(clean, name), getattr(adversarial, name)
            if name not in region.names:
                _require(after == before, clean, f"{name} changed, but the threat forbids it")
                continue
            low, high, mask = region.limits(name)
            _require((after >= low) & (after <= high), clean, f"{name} left its bounds or is NaN")
            if mask is not None:
                _require((after == before) | mask, clean, f"{name} changed outside its mask")
            frames = self.budgets[name].frames
            if frames is not None:
                moved = (after != before).transpose(1, 2).flatten(2).any(2).sum(1)
                _require(moved <= frames, clean, f"{name} changed in more than {frames} frames")
        for name, size in self.sizes(clean, adversarial).items():
            eps = self.budgets[name].eps
            _require(size <= eps + TOLERANCE, clean, f"{name} left its budget of {eps}")
        self._check_motion(clean, adversarial)

    def _check_motion(self, clean: Batch, adversarial: Batch) -> None:
        if self.skeleton is None:
            return
        pair = (clean.skeleton, adversarial.skeleton, clean.present)
        if self.bone_length is not None:
            limit = self.bone_length + 1e-4
            _require(bone_change(*pair) <= limit, clean, f"a bone changed by over {limit:.4g}")
        if self.acceleration is not None:
            limit = self.acceleration + 2 * TOLERANCE
            _require(
                acceleration_change(*pair) <= limit,
                clean,
                f"acceleration changed by over {limit:.4g}",
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON and MLflow."""
        return dataclasses.asdict(self)

    def fingerprint(self) -> str:
        """A short hash of the threat that is the same on every machine and in every process."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _require(holds: Tensor, clean: Batch, what: str) -> None:
    fine = holds.reshape(holds.shape[0], -1).all(dim=1)
    if not bool(fine.all()):
        clip = clean.clip_id[int((~fine).nonzero()[0])]
        raise UserError(f"clip {clip}: {what}; project with ThreatModel.project first")
