"""Losses of the training methods: per-clip terms [B], divided by the step's clip count later."""

import torch
import torch.nn.functional as F
from torch import Tensor

from components.batch import ModelOutput


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy per clip [B] of logits [B, K]."""
    return F.cross_entropy(logits.float(), label, reduction="none")


def kl(clean: Tensor, adversarial: Tensor) -> Tensor:
    """KL(p_clean || p_adversarial) per clip [B], from logits [B, K]."""
    return F.kl_div(
        F.log_softmax(adversarial.float(), 1),
        F.log_softmax(clean.float(), 1),
        reduction="none",
        log_target=True,
    ).sum(1)


def trades(clean: Tensor, adversarial: Tensor, label: Tensor, beta: float):
    """TRADES (Zhang et al., arXiv 1901.08573, eq. 5): CE(clean) + beta KL(clean || adversarial)."""
    return cross_entropy(clean, label) + beta * kl(clean, adversarial)


def mart(clean: Tensor, adversarial: Tensor, label: Tensor, beta: float) -> Tensor:
    """MART (Wang et al., ICLR 2020, eq. 11), per clip [B].

    Boosted cross-entropy on the adversarial clip, plus beta KL(clean || adversarial) weighted by
    1 - p_clean(true class), so that clips already wrong count most.
    """
    p_adv = F.softmax(adversarial.float(), 1)
    others = p_adv.scatter(1, label[:, None], 0.0).amax(1)
    boosted = cross_entropy(adversarial, label) - torch.log1p(-others.clamp(max=1 - 1e-6))
    p_true = F.softmax(clean.float(), 1).gather(1, label[:, None]).squeeze(1)
    return boosted + beta * kl(clean, adversarial) * (1.0 - p_true)


def auxiliary(output: ModelOutput, label: Tensor) -> Tensor:
    """Mean cross-entropy of the per-modality heads, per clip [B]; 0 without heads."""
    if not output.aux:
        return torch.zeros(label.shape[0], device=label.device)
    heads = [cross_entropy(logits, label) for logits in output.aux.values()]
    return torch.stack(heads).mean(0)


def halves(output: ModelOutput) -> tuple[ModelOutput, ModelOutput]:
    """The first and second half of the clips of one forward pass over [2B] clips."""
    half = output.logits.shape[0] // 2

    def part(rows: slice) -> ModelOutput:
        return ModelOutput(
            output.logits[rows],
            {k: v[rows] for k, v in output.aux.items()},
            {k: v[rows] for k, v in output.weights.items()},
            {k: v[rows] for k, v in output.features.items()},
        )

    return part(slice(None, half)), part(slice(half, None))
