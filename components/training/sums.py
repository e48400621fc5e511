"""What an epoch adds up on the device: loss, accuracies, gradient norms; read once, at its end."""

import torch
from torch import Tensor, nn

from components.attacks import frozen
from components.batch import Batch, logits_of
from components.training.step import StepResult


@torch.no_grad()
def probe(model: nn.Module, batch: Batch) -> Tensor:
    """(clips right without attack, clips) in one forward pass in evaluation mode."""
    with frozen(model) as net:
        logits = logits_of(net(batch.rgb, batch.skeleton, batch.present))
    right = (logits.argmax(1) == batch.label).sum().double()
    return torch.stack([right, torch.full_like(right, batch.size)])


@torch.no_grad()
def gradient_norms(model: nn.Module, like: Tensor) -> Tensor:
    """[norm of the video net's gradient, of the skeleton net's, 1] after a step, on the device."""
    found = like.new_zeros(3)
    for place, name in enumerate(("rgb", "skeleton")):
        stream = getattr(model, name, None)
        grads = [p.grad for p in stream.parameters() if p.grad is not None] if stream else []
        if grads:
            found[place] = torch.stack(torch._foreach_norm(grads)).norm()
    found[2] = 1.0
    return found


def mean_norms(sums: list[float]) -> dict[str, float | None]:
    rgb, skeleton, looks = sums
    return {
        "rgb_grad": rgb / looks if looks else None,
        "skeleton_grad": skeleton / looks if looks else None,
    }


def as_sums(result: StepResult, like: Tensor) -> Tensor:
    """[loss, clips, robust right, robust seen, clean right, clean seen] without a host sync."""
    counts = like.new_tensor([0, result.clips, 0, result.robust_seen, 0, result.clean_seen])
    counts[0] += result.loss
    counts[2] += result.robust
    counts[4] += result.clean
    return counts


def averages_of(sums: list[float]) -> dict[str, float | None]:
    """Loss and training accuracies from the six sums of an epoch; None where nothing was seen."""
    loss, clips, robust, robust_seen, clean, clean_seen = sums
    return {
        "loss": loss / max(clips, 1.0),
        "train_clean_acc": clean / clean_seen if clean_seen else None,
        "train_robust_acc": robust / robust_seen if robust_seen else None,
    }
