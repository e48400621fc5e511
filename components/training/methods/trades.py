"""TRADES (Zhang et al., arXiv 1901.08573): accuracy on clean clips, and a prediction that stays."""

import torch
from torch import nn

from components.attacks.pgd import pgd
from components.batch import Batch, logits_of
from components.config.train import TrainSection
from components.training import losses
from components.training.methods.base import InnerProblem, Method, Terms, attackable, minimise_pair


def craft(problem: InnerProblem) -> Batch:
    """PGD on KL(clean || adversarial), section 4 of the paper.

    Always from a random point of the ball: at the clean clip the divergence has no gradient.
    """
    clean = problem.clean
    with attackable(problem.module) as net:
        with torch.no_grad():
            logits = logits_of(net(clean.rgb, clean.skeleton, clean.present)).float()
        return pgd(
            net,
            clean,
            problem.threat,
            seed=problem.seed,
            steps=problem.steps(),
            rel_alpha=problem.train.attack.rel_alpha,
            loss=lambda output, label: losses.kl(logits, logits_of(output)),
            name="train",
        )


def minimise(model: nn.Module, clean: Batch, adversarial: Batch, train: TrainSection) -> Terms:
    """See `losses.trades`; both halves go through the model in one pass."""
    return minimise_pair(model, clean, adversarial, train, losses.trades)


METHOD = Method(craft, minimise)
