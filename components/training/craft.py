"""How the training methods craft their examples: the inner maximisation, before the one update.

How a gradient attack works inside is `components.attacks`' business.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from components.attacks import ThreatModel, frozen, pgd
from components.attacks.folding import folded
from components.attacks.gradient import value_and_grad
from components.attacks.losses import cross_entropy
from components.attacks.pgd import start_seeds
from components.batch import Batch, ModelOutput, logits_of
from components.training.losses import auxiliary, kl
from components.training.recipe import Recipe

NOISE = 2.0  # k of N-FGSM: its noise is uniform in [-k eps, k eps]


class Inner(NamedTuple):
    """One inner problem: `module` is unwrapped, `before` are the examples of the last replay."""

    module: nn.Module
    clean: Batch
    threat: ThreatModel
    recipe: Recipe
    seed: int
    before: Batch | None = None


@contextmanager
def attackable(module: nn.Module) -> Iterator[nn.Module]:
    """The module in the form that training attacks go through: frozen, and folded for speed."""
    with frozen(module) as net, folded(net):
        yield net


def leave_clean(inner: Inner) -> Batch:
    """Natural training sees the clips as they are."""
    return inner.clean


def craft_pgd(inner: Inner) -> Batch:
    """PGD on the cross-entropy (Madry et al., arXiv 1706.06083), of the heads too if so wanted.

    A fused prediction that is already wrong, or safe through one modality, tells the attack little
    about the other; the heads' own loss goes on asking both streams for their worst.
    """
    recipe = inner.recipe

    def with_heads(output: ModelOutput | Tensor, label: Tensor) -> Tensor:
        loss = cross_entropy(output, label)
        if isinstance(output, ModelOutput):
            loss = loss + recipe.heads * auxiliary(output, label, 0.0)
        return loss

    with attackable(inner.module) as net:
        return pgd(
            net,
            inner.clean,
            inner.threat,
            seed=inner.seed,
            steps=recipe.attack_steps,
            rel_alpha=recipe.rel_alpha,
            random_start=recipe.random_start,
            early_stop=recipe.early_stop,
            loss=with_heads if recipe.heads else "ce",
            name="train",
        )


def craft_kl(inner: Inner) -> Batch:
    """PGD on KL(clean || adversarial), the inner problem of TRADES (arXiv 1901.08573, sec. 4).

    Always from a random point of the ball: at the clean clip the divergence has no gradient.
    """
    clean = inner.clean
    with attackable(inner.module) as net:
        with torch.no_grad():
            logits = logits_of(net(clean.rgb, clean.skeleton, clean.present)).float()
        return pgd(
            net,
            clean,
            inner.threat,
            seed=inner.seed,
            steps=inner.recipe.attack_steps,
            rel_alpha=inner.recipe.rel_alpha,
            loss=lambda output, label: kl(logits, logits_of(output)),
            name="train",
        )


def craft_fgsm_rs(inner: Inner) -> Batch:
    """One step of 1.25 eps from a random start (Wong et al., arXiv 2001.03994).

    After a rollback it goes on as PGD of a few steps.
    """
    steps = inner.recipe.attack_steps
    with attackable(inner.module) as net:
        return pgd(
            net,
            inner.clean,
            inner.threat,
            seed=inner.seed,
            steps=steps,
            rel_alpha=inner.recipe.rel_alpha or (1.25 if steps == 1 else 2.5 / steps),
            name="train",
        )


def craft_nfgsm(inner: Inner) -> Batch:
    """Noise of twice eps, then one step of eps, not clipped back (de Jorge et al., 2202.01181).

    Only bounds of the values and absent persons are kept: these examples leave the budget by
    design. After a rollback it goes on as PGD of a few steps.
    """
    if inner.recipe.boost:
        return craft_pgd(inner)
    relative = inner.recipe.rel_alpha or 1.0
    noisy = inner.threat.scaled(NOISE, NOISE).region(inner.clean)
    wide = inner.threat.scaled(NOISE + relative, NOISE + relative).region(inner.clean)
    adv = noisy.random_start(start_seeds(noisy, inner.seed, "train"))
    with attackable(inner.module) as net:
        _, _, grads = value_and_grad(net, inner.clean, adv, cross_entropy)
    wide.step_(adv, grads, {m: relative * b.eps for m, b in inner.threat.budgets.items()})
    return wide.finish(adv)


def craft_free(inner: Inner) -> Batch:
    """Move the last replay's examples along the gradient its backward left in them.

    "Free" training (Shafahi et al., arXiv 1904.12843): one backward pass serves the weights and
    the inputs. The first replay starts at a random point, where the paper carries the
    perturbation over from the batch before: so a run can resume anywhere.
    """
    region = inner.threat.region(inner.clean)
    if inner.before is None:
        adv = region.random_start(start_seeds(region, inner.seed, "train"))
    else:
        leaves = {m: getattr(inner.before, m) for m in region.names}
        adv = {m: leaf.detach() for m, leaf in leaves.items()}
        relative = inner.recipe.rel_alpha or 1.0
        length = {m: relative * b.eps for m, b in inner.threat.budgets.items()}
        region.step_(adv, {m: leaf.grad for m, leaf in leaves.items()}, length)
    leaf = {m: x.detach().requires_grad_(True) for m, x in adv.items()}
    return inner.clean._replace(**leaf)  # type: ignore[arg-type]
