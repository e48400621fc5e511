"""FGSM from a random start (Wong et al., arXiv 2001.03994)."""

from components.attacks.pgd import pgd
from components.batch import Batch
from components.training.methods.base import InnerProblem, Method, attackable, minimise_adversarial


def craft(problem: InnerProblem) -> Batch:
    """One step of 1.25 eps from a random start; after a rollback PGD of a few steps."""
    steps = problem.steps(own=1)
    own_alpha = 1.25 if steps == 1 else 2.5 / steps
    with attackable(problem.module) as net:
        return pgd(
            net,
            problem.clean,
            problem.threat,
            seed=problem.seed,
            steps=steps,
            rel_alpha=problem.train.attack.rel_alpha or own_alpha,
            name="train",
        )


METHOD = Method(craft, minimise_adversarial, own_steps=1)
