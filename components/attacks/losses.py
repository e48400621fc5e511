"""What an attack climbs: losses over a model's output, one value per clip, higher = more fooled.

Each takes (output, label [B]) and returns float32 [B]. Which loss an attack takes is a name here
or any callable of this form; the adaptive ones for AMR are in `adaptive.py`.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from components.batch import ModelOutput, logits_of
from components.errors import UserError

Loss = Callable[[ModelOutput | Tensor, Tensor], Tensor]


def cross_entropy(
    output: ModelOutput | Tensor, label: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of the fused logits."""
    logits = logits_of(output).float()
    return F.cross_entropy(logits, label, reduction="none", label_smoothing=label_smoothing)


def margin_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Best wrong logit minus the right one [B]; positive = fooled (Carlini & Wagner 2017, f6)."""
    right = logits.gather(1, label[:, None]).squeeze(1)
    return wrong_logits(logits, label).amax(dim=1) - right


def margin(output: ModelOutput | Tensor, label: Tensor) -> Tensor:
    """The CW margin of the fused logits; unlike cross-entropy it never saturates."""
    return margin_loss(logits_of(output).float(), label)


def soft_margin(output: ModelOutput | Tensor, label: Tensor, sharpness: Tensor) -> Tensor:
    """The margin with a soft maximum over the wrong classes; `sharpness` [B], above 0.

    log sum_{k != y} exp(b z_k) / b - z_y: the plain margin plus at most log(K - 1) / b. Its
    gradient has the direction of that of the cross-entropy of b z, and never fades.
    """
    logits = logits_of(output).float()
    right = logits.gather(1, label[:, None]).squeeze(1)
    wrong = wrong_logits(logits * sharpness[:, None], label)
    return wrong.logsumexp(dim=1) / sharpness - right


def spread_of(wrong: Tensor) -> Tensor:
    """Standard deviation [B] of the wrong logits [B, K], which are -inf at the right class."""
    others = wrong.isfinite()
    count = others.sum(1).clamp(min=1)
    mean = torch.where(others, wrong, 0.0).sum(1) / count
    squares = torch.where(others, (wrong - mean[:, None]).square(), 0.0)
    return (squares.sum(1) / count).sqrt().clamp(min=1e-6)


def own_soft_margin(output: ModelOutput | Tensor, label: Tensor) -> Tensor:
    """`soft_margin` at 4 / spread of the wrong logits in this very output: no clean pass needed."""
    wrong = wrong_logits(logits_of(output).detach().float(), label)
    return soft_margin(output, label, 4.0 / spread_of(wrong))


def target_margin(output: ModelOutput | Tensor, label: Tensor, target: Tensor) -> Tensor:
    """Logit of `target` [B] minus the right one, [B]."""
    logits = logits_of(output).float()
    return (logits.gather(1, target[:, None]) - logits.gather(1, label[:, None])).squeeze(1)


def dlr(output: ModelOutput | Tensor, label: Tensor) -> Tensor:
    """Difference of logits ratio (Croce & Hein 2020, eq. 6): blind to scale and shift of logits.

    It needs a third logit. With two classes it would be constant, so the plain margin stands in.
    """
    logits = logits_of(output).float()
    if logits.shape[1] < 3:
        return margin_loss(logits, label)
    top = logits.topk(3, dim=1).values
    return margin_loss(logits, label) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(output: ModelOutput | Tensor, label: Tensor, target: Tensor) -> Tensor:
    """Targeted DLR (Croce & Hein 2020, eq. 7) towards `target` [B].

    The denominator needs four logits. With three classes the third stands in for the mean of the
    third and fourth; with two the plain margin does.
    """
    logits = logits_of(output).float()
    gap = target_margin(output, label, target)
    classes = logits.shape[1]
    if classes < 3:
        return gap
    top = logits.topk(min(4, classes), dim=1).values
    return gap / (top[:, 0] - top[:, 2:].mean(dim=1) + 1e-12)


LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "margin": margin,
    "soft_margin": own_soft_margin,
    "dlr": dlr,
}


def get_loss(loss: str | Loss, label_smoothing: float = 0.0) -> Loss:
    """The loss of this name, or the callable itself. ValueError for an unknown name."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise UserError(f"loss must be one of {', '.join(LOSSES)} or a callable; got {loss!r}")
    if loss == "ce" and label_smoothing:
        return partial(cross_entropy, label_smoothing=label_smoothing)
    return LOSSES[loss]


def fooled(logits: Tensor, label: Tensor) -> Tensor:
    """bool [B]: the prediction is wrong; the same rule as accuracy, ties included."""
    return logits.argmax(dim=1) != label


def wrong_logits(logits: Tensor, label: Tensor) -> Tensor:
    """Logits [B, K] with -inf at the right class."""
    return logits.scatter(1, label[:, None], -torch.inf)
