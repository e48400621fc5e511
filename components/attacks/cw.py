"""PGD on the margin of Carlini & Wagner (2017), which does not saturate as cross-entropy does."""

from components.attacks.gradient import Model
from components.attacks.pgd import pgd
from components.attacks.threat import ThreatModel
from components.batch import Batch


def cw(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 20,
    n_restarts: int = 1,
    early_stop: bool = False,
) -> Batch:
    """The strongest clips of PGD that climbs best wrong logit minus right logit."""
    return pgd(
        model,
        batch,
        threat,
        seed=seed,
        steps=steps,
        n_restarts=n_restarts,
        loss="margin",
        keep="best",
        early_stop=early_stop,
        name="cw",
    )
