"""Sparse frames: only a few frames of each stream may change, those that matter most."""

import torch
from torch import Tensor

from components.attacks.gradient import Model, frozen, value_and_grad
from components.attacks.losses import get_loss
from components.attacks.pgd import pgd
from components.attacks.region import Region
from components.attacks.threat import ThreatModel
from components.batch import Batch
from components.errors import UserError


def sparse_frames(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    frames: int = 1,
    steps: int = 20,
    n_restarts: int = 1,
    loss: str = "margin",
) -> Batch:
    """PGD on the `frames` frames per stream whose change gains most to first order.

    One forward and backward pass ranks the frames by the dual norm of their gradient; then
    `steps` passes a restart. To bind every attack to a number of frames set `Budget.frames`.
    """
    if frames < 1:
        raise UserError(f"frames must be at least 1, got {frames}")
    region = threat.region(batch)
    with frozen(model) as net:
        _, _, grads = value_and_grad(net, batch, region.start(), get_loss(loss))
    only = {m: _chosen(region, m, g.nan_to_num_(0.0), frames) for m, g in grads.items()}
    return pgd(
        model,
        batch,
        threat,
        seed=seed,
        steps=steps,
        n_restarts=n_restarts,
        loss=loss,
        keep="best",
        only=only,
        name="sparse_frames",
    )


def _chosen(region: Region, name: str, grad: Tensor, frames: int) -> Tensor:
    """bool [B, 1, T, 1, 1], True at the frames that gain most."""
    _, _, mask = region.limits(name)
    seen = grad if mask is None else grad * mask
    gain = seen.abs() if region.budgets[name].norm == "Linf" else seen.square()
    order = gain.sum(dim=(1, 3, 4)).argsort(dim=1, descending=True, stable=True)[:, :frames]
    chosen = torch.zeros(grad.shape[0], grad.shape[2], dtype=torch.bool, device=grad.device)
    return chosen.scatter_(1, order, True)[:, None, :, None, None]
