"""N-FGSM (de Jorge et al., arXiv 2202.01181): noise wider than the budget, then one step."""

import dataclasses

from components.attacks.gradient import value_and_grad
from components.attacks.losses import cross_entropy
from components.attacks.pgd import start_seeds
from components.batch import Batch
from components.training.methods.base import (
    InnerProblem,
    Method,
    attackable,
    craft_pgd,
    minimise_adversarial,
)

NOISE = 2.0  # k of the paper: its noise is uniform in [-k eps, k eps]


def craft(problem: InnerProblem) -> Batch:
    """Noise of twice eps, then one step of eps, not clipped back.

    Only bounds of the values and absent persons are kept: these examples leave the budget by
    design. After a rollback it goes on as PGD of two steps, four, ...
    """
    if problem.rollbacks:
        attack = dataclasses.replace(problem.train.attack, steps=1)
        train = dataclasses.replace(problem.train, attack=attack)
        return craft_pgd(problem._replace(train=train))
    relative = problem.train.attack.rel_alpha or 1.0
    noisy = problem.threat.scaled(NOISE, NOISE).region(problem.clean)
    wide = problem.threat.scaled(NOISE + relative, NOISE + relative).region(problem.clean)
    adversarial = noisy.random_start(start_seeds(noisy, problem.seed, "train"))
    with attackable(problem.module) as net:
        _, _, grads = value_and_grad(net, problem.clean, adversarial, cross_entropy)
    lengths = {m: relative * b.eps for m, b in problem.threat.budgets.items()}
    wide.step_(adversarial, grads, lengths)
    return wide.finish(adversarial)


METHOD = Method(craft, minimise_adversarial, own_steps=1)
