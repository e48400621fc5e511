"""Transfer: clips made against one model and shown to another, which must not do better than
white-box attacks on that other model itself."""

from typing import Any

from components.attacks.counter import Counter
from components.attacks.gradient import Model
from components.attacks.pgd import pgd
from components.attacks.threat import ThreatModel
from components.batch import Batch


def transfer(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    source: Model,
    attack: Any = pgd,
    **parameters: Any,
) -> Batch:
    """What `attack` (any of this package, PGD's last iterate by default) finds against `source`.

    The attacked `model` is never asked. Its Counter, if it has one, is charged the source's passes.
    """
    spent = Counter(source)
    found = attack(spent, batch, threat, seed=seed, **parameters)
    if isinstance(model, Counter):
        model.forwards.update(spent.forwards)
        model.backwards.update(spent.backwards)
    return found
