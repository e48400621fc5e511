"""Universal perturbation (Moosavi-Dezfooli et al. 2017): one change, laid over every clip."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from components.attacks.gradient import Model, frozen, value_and_grad
from components.attacks.losses import margin
from components.attacks.region import Region, rescale
from components.attacks.threat import ThreatModel
from components.batch import Batch, ModelOutput
from components.errors import UserError


def fit_universal(
    model: Model,
    batches: Sequence[Batch],
    threat: ThreatModel,
    *,
    epochs: int = 10,
    rel_alpha: float = 0.1,
) -> dict[str, Tensor]:
    """The perturbation [1, ...] per touched modality that fools most clips of `batches`.

    Steepest ascent on the margin of the clips that still stand, one step a batch. It sees the
    batches in the order given and draws no random numbers, so the result depends on them alone.
    """
    if not batches:
        raise UserError("a universal perturbation needs at least one batch to fit on")
    delta = {m: torch.zeros_like(x[:1]) for m, x in threat.region(batches[0]).clean.items()}
    with frozen(model) as net:
        for _ in range(epochs):
            for batch in batches:
                region = threat.region(batch)
                _, _, grads = value_and_grad(net, batch, _laid_over(region, delta), _standing)
                for name, grad in grads.items():
                    budget = region.budgets[name]
                    common = grad.nan_to_num_(0.0).sum(dim=0, keepdim=True)
                    if budget.norm == "Linf":
                        step = common.sign_().mul_(rel_alpha * budget.eps)
                        delta[name].add_(step).clamp_(-budget.eps, budget.eps)
                    else:
                        delta[name].add_(rescale(common, rel_alpha * budget.eps))
                        size = delta[name].norm().clamp(min=1e-12)
                        delta[name].mul_((budget.eps / size).clamp(max=1.0))
    return delta


def universal(
    model: Model, batch: Batch, threat: ThreatModel, *, seed: int, delta: Mapping[str, Tensor]
) -> Batch:
    """The clips with `delta` from `fit_universal` laid over them; costs no pass.

    Raises ValueError when a touched modality is missing in `delta` or has another shape.
    """
    region = threat.region(batch)
    for name, x in region.clean.items():
        if name not in delta or delta[name].shape[1:] != x.shape[1:]:
            got = tuple(delta[name].shape) if name in delta else "nothing"
            raise UserError(f"delta needs {name} of shape (1, *{tuple(x.shape[1:])}), got {got}")
    return region.finish(_laid_over(region, delta))


def _laid_over(region: Region, delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    adv = {m: x + delta[m].to(x.device) for m, x in region.clean.items()}
    return region.project_(adv)


def _standing(output: ModelOutput | Tensor, label: Tensor) -> Tensor:
    # No credit for a clip that is fooled already: its gradient would only drown the others'.
    return margin(output, label).clamp(max=0.0)
