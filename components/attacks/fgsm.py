"""The fast gradient sign method (Goodfellow et al. 2015): one step of the full budget."""

from components.attacks.gradient import Model
from components.attacks.losses import Loss
from components.attacks.pgd import pgd
from components.attacks.threat import ThreatModel
from components.batch import Batch


def fgsm(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    rel_alpha: float = 1.0,
    random_start: bool = False,
    loss: str | Loss = "ce",
) -> Batch:
    """One forward and one backward pass; a random start and rel_alpha=1.25 make it FGSM-RS.

    (Wong et al. 2020, "Fast is better than free".) In L2 the step follows the gradient itself.
    """
    return pgd(
        model,
        batch,
        threat,
        seed=seed,
        steps=1,
        rel_alpha=rel_alpha,
        random_start=random_start,
        loss=loss,
        name="fgsm",
    )
