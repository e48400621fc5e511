"""What a training method is: how it crafts its examples, and what it minimises on them.

A method is one file beside this one and one line in `METHODS`; step and loop are the same for all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from components.attacks import ThreatModel, frozen
from components.attacks.folding import folded
from components.attacks.gradient import unwrap
from components.attacks.pgd import pgd
from components.batch import Batch, ModelOutput, logits_of
from components.config.train import TrainSection
from components.training import losses

BETA = 6.0  # weight of the robust term: TRADES' own choice (section 5.3), and MART's is near it


class InnerProblem(NamedTuple):
    """The inner maximisation of one batch: the plain `module`, its clips and their budget.

    rollbacks: after catastrophic overfitting; each one doubles the attack's steps
    previous:  the examples of the replay before (Free), or None
    """

    module: nn.Module
    clean: Batch
    threat: ThreatModel
    train: TrainSection
    seed: int
    rollbacks: int = 0
    previous: Batch | None = None

    def steps(self, own: int | None = None) -> int:
        """Steps of the attack: the settings', or a method's `own`, doubled by every rollback."""
        return (own or self.train.attack.steps) * 2**self.rollbacks


class Terms(NamedTuple):
    """Loss per clip [B], and the logits [B, K] on attacked and on clean clips where computed."""

    loss: Tensor
    robust: Tensor | None
    clean: Tensor | None


@dataclass(frozen=True)
class Method:
    """Crafts examples on the plain module, and minimises on them through the wrapped one.

    replays: go over each batch `train.attack.steps` times, with one update each
    own_steps: steps of the attack where the method says so itself, 0 = `train.attack.steps`
    """

    craft: Callable[[InnerProblem], Batch]
    minimise: Callable[[nn.Module, Batch, Batch, TrainSection], Terms]
    replays: bool = False
    own_steps: int = 0

    def attack_steps(self, train: TrainSection, rollbacks: int = 0) -> int:
        """Steps of the training attack, doubled by every rollback."""
        return (self.own_steps or train.attack.steps) * 2**rollbacks

    def passes(self, train: TrainSection, rollbacks: int = 0) -> int:
        """How often a batch is gone over."""
        return self.attack_steps(train, rollbacks) if self.replays else 1


@contextmanager
def attackable(module: nn.Module) -> Iterator[nn.Module]:
    """The module in the form that training attacks go through: frozen, and folded for speed."""
    with frozen(module) as net, folded(net):
        yield net


def craft_pgd(problem: InnerProblem) -> Batch:
    """PGD on the fused prediction (Madry et al., arXiv 1706.06083), by `train.attack.loss`."""
    attack = problem.train.attack
    with attackable(problem.module) as net:
        return pgd(
            net,
            problem.clean,
            problem.threat,
            seed=problem.seed,
            steps=problem.steps(),
            rel_alpha=attack.rel_alpha,
            early_stop=attack.early_stop,
            loss=attack.loss,
            name="train",
        )


def minimise_adversarial(
    model: nn.Module, clean: Batch, adversarial: Batch, train: TrainSection
) -> Terms:
    """Cross-entropy on the adversarial clips alone (Madry et al., arXiv 1706.06083, eq. 2.1)."""
    output = model(adversarial.rgb, adversarial.skeleton, adversarial.present)
    loss = losses.cross_entropy(logits_of(output), adversarial.label)
    return Terms(loss + extras(model, output, adversarial, train), logits_of(output), None)


def minimise_pair(
    model: nn.Module,
    clean: Batch,
    adversarial: Batch,
    train: TrainSection,
    term: Callable[..., Tensor],
) -> Terms:
    """`term(clean logits, adversarial logits, label, beta)` from one forward pass."""
    pairs = zip(clean[:3], adversarial[:3], strict=True)
    output = model(*(torch.cat([a, b]) for a, b in pairs))
    if isinstance(output, Tensor):
        output = ModelOutput(output, {}, {}, {})
    first, second = losses.halves(output)
    loss = term(first.logits, second.logits, clean.label, BETA)
    return Terms(loss + extras(model, second, clean, train), second.logits, first.logits)


def extras(
    model: nn.Module, output: ModelOutput | Tensor, batch: Batch, train: TrainSection
) -> Tensor:
    """Loss of the single modalities' heads and the fusion's own regulariser, per clip [B]."""
    if isinstance(output, Tensor):
        return output.new_zeros(batch.size, dtype=torch.float32)
    # Also with weight zero: DDP must see every parameter used.
    extra = train.aux_weight * losses.auxiliary(output, batch.label)
    regulariser = getattr(unwrap(model), "regulariser", None)
    return extra if regulariser is None else extra + regulariser(output)
