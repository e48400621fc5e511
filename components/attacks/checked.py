"""The one look at clips, budgets and model that an attack called alone takes before it begins.

Clips in another unit give an attack that does nothing, and a label without a logit ends deep in a
kernel. Whoever has looked already (an evaluation) or must not wait for the device (training) calls
the attack's own function, which is `attack.unchecked`.
"""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from torch import Tensor, nn

from components.attacks.gradient import Model, unwrap
from components.attacks.threat import ThreatModel
from components.batch import Batch, ModelOutput
from components.inputs import check_clips, check_labels, check_logits
from components.units import check_l2, check_metres

Attack = Callable[..., Batch]
UNIT_PIXELS = {"low": 0.0, "high": 1.0}


def checked(attack: Attack, asks: str = "model") -> Attack:
    """`attack(model, batch, threat, *, seed, unit="metres", **parameters)` behind the check.

    It costs no pass; it waits for the device once, before the attack begins.
    asks: the argument whose logits the attack climbs: "model", "source", or "" for none
    unit: of joints and their budget; joints of any other unit than metres are not checked for size
    Raises UserError for clips that are not what `Batch` promises, budgets in millimetres, a model
    that returns no logits, or labels for which there is no logit.
    """

    def run(
        model: Model,
        batch: Batch,
        threat: ThreatModel,
        *,
        seed: int,
        unit: str = "metres",
        **parameters: Any,
    ) -> Batch:
        clips = looked_at(batch, threat, unit)
        if asks == "model":
            model = _FirstLook(model, clips)
        elif asks in parameters:
            parameters[asks] = _FirstLook(parameters[asks], clips)
        return attack(model, clips, threat, seed=seed, **parameters)

    update_wrapper(run, attack)
    run.unchecked = attack  # type: ignore[attr-defined]
    return run


class _FirstLook(nn.Module):
    """The model; its first answer must be logits that have a place for every label."""

    def __init__(self, model: Model, clips: Batch) -> None:
        super().__init__()
        self.model = unwrap(model)
        self.label: Tensor | None = clips.label.cpu()

    def forward(self, rgb: Tensor, skeleton: Tensor, present: Tensor) -> ModelOutput | Tensor:
        """As the model's."""
        output = self.model(rgb, skeleton, present)
        if self.label is not None:
            logits = output.logits if isinstance(output, ModelOutput) else output
            check_labels(self.label, check_logits(logits, rgb.shape[0]))
            self.label = None
        return output


def unchecked(attack: Attack) -> Attack:
    """The attack itself, for callers that have looked at the clips already."""
    return getattr(attack, "unchecked", attack)


def looked_at(batch: Batch, threat: ThreatModel, unit: str = "metres") -> Batch:
    """The clips with int64 labels, when clips and budgets are what they must be."""
    bounds = pixel_bounds(threat)
    clips = check_clips(batch, **bounds, unit=unit)
    for name, budget in threat.budgets.items():
        in_units = (bounds == UNIT_PIXELS) if name == "rgb" else (unit == "metres")
        if in_units and budget.norm == "L2":
            check_l2(f"the eps of {name}", budget.eps, getattr(clips, name)[0].numel())
        elif in_units and name == "skeleton":
            check_metres("the eps of skeleton", budget.eps)
    return clips


def pixel_bounds(threat: ThreatModel) -> dict[str, float]:
    """`low` and `high` of the pixels that the threat model is stated in."""
    rgb = threat.rgb
    if rgb is None or rgb.low is None or rgb.high is None:
        return dict(UNIT_PIXELS)
    return {"low": rgb.low, "high": rgb.high}
