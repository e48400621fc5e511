"""The training methods by name: how each crafts its examples, and what it minimises on them.

A method is two small functions and a number of passes over each batch; the step and the loop are
the same for all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from components.attacks.gradient import unwrap
from components.batch import Batch, ModelOutput, logits_of
from components.training import craft, losses
from components.training.craft import Inner
from components.training.recipe import Recipe


class Terms(NamedTuple):
    """Loss per clip [B], and the logits [B, K] on attacked and on clean clips where computed."""

    loss: Tensor
    robust: Tensor | None
    clean: Tensor | None


@dataclass(frozen=True)
class Method:
    """Crafts examples on the plain module, and minimises on them through the wrapped one.

    replays: go over each batch `recipe.steps` times, with one update each.
    """

    craft: Callable[[Inner], Batch]
    minimise: Callable[[nn.Module, Batch, Batch, Recipe], Terms]
    replays: bool = False

    def passes(self, recipe: Recipe) -> int:
        """How often a batch is gone over."""
        return recipe.attack_steps if self.replays else 1


def minimise_clean(model: nn.Module, clean: Batch, adv: Batch, recipe: Recipe) -> Terms:
    """Cross-entropy on the clips as they are."""
    output = model(clean.rgb, clean.skeleton, clean.present)
    loss = losses.cross_entropy(logits_of(output), clean.label, recipe.label_smoothing)
    return Terms(loss + _extras(model, output, None, clean, recipe), None, logits_of(output))


def minimise_adversarial(model: nn.Module, clean: Batch, adv: Batch, recipe: Recipe) -> Terms:
    """Cross-entropy on the adversarial clips alone (Madry et al., arXiv 1706.06083, eq. 2.1).

    The clean clips go along only where `consistency` compares modality weights.
    """
    first = None
    if recipe.consistency:
        first, output = _forward_both(model, clean, adv)
    else:
        output = model(adv.rgb, adv.skeleton, adv.present)
    loss = losses.cross_entropy(logits_of(output), adv.label, recipe.label_smoothing)
    loss = loss + _extras(model, output, first, adv, recipe)
    return Terms(loss, logits_of(output), None if first is None else first.logits)


def minimise_trades(model: nn.Module, clean: Batch, adv: Batch, recipe: Recipe) -> Terms:
    """See `losses.trades`; both halves go through the model in one pass."""
    return _minimise_pair(model, clean, adv, recipe, losses.trades)


def minimise_mart(model: nn.Module, clean: Batch, adv: Batch, recipe: Recipe) -> Terms:
    """See `losses.mart`; both halves go through the model in one pass."""
    return _minimise_pair(model, clean, adv, recipe, losses.mart)


def _minimise_pair(
    model: nn.Module, clean: Batch, adv: Batch, recipe: Recipe, term: Callable[..., Tensor]
) -> Terms:
    first, second = _forward_both(model, clean, adv)
    loss = term(first.logits, second.logits, clean.label, recipe.beta, recipe.label_smoothing)
    loss = loss + _extras(model, second, first, clean, recipe)
    return Terms(loss, second.logits, first.logits)


def _forward_both(model: nn.Module, clean: Batch, adv: Batch) -> tuple[ModelOutput, ModelOutput]:
    pairs = zip(clean[:3], adv[:3], strict=True)
    output = model(*(torch.cat([a, b]) for a, b in pairs))
    if isinstance(output, Tensor):
        output = ModelOutput(output, {}, {}, {})
    return losses.halves(output)


def _extras(
    model: nn.Module,
    output: ModelOutput | Tensor,
    clean: ModelOutput | None,
    batch: Batch,
    recipe: Recipe,
) -> Tensor:
    """Heads of the single modalities, the fusion's own regulariser, and weight consistency."""
    if isinstance(output, Tensor):
        return output.new_zeros(batch.size, dtype=torch.float32)
    # Also with weight zero: DDP must see every parameter used.
    extra = recipe.aux_weight * losses.auxiliary(output, batch.label, recipe.label_smoothing)
    regulariser = getattr(unwrap(model), "regulariser", None)
    if regulariser is not None:
        extra = extra + regulariser(output)
    if clean is not None and recipe.consistency:
        extra = extra + recipe.consistency * losses.weight_consistency(clean, output)
    return extra


METHODS: dict[str, Method] = {
    "natural": Method(craft.leave_clean, minimise_clean),
    "pgd_at": Method(craft.craft_pgd, minimise_adversarial),
    "trades": Method(craft.craft_kl, minimise_trades),
    "mart": Method(craft.craft_pgd, minimise_mart),
    "fgsm_rs": Method(craft.craft_fgsm_rs, minimise_adversarial),
    "nfgsm": Method(craft.craft_nfgsm, minimise_adversarial),
    "free": Method(craft.craft_free, minimise_adversarial, replays=True),
}
