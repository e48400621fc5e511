"""Attacks on (video, skeleton) pairs under a budget per modality; all share one contract.

`attack(model, batch, threat, *, seed, **parameters) -> Batch`: see `docs/attacks.md`.
"""

from collections.abc import Callable
from functools import partial

from components.attacks.counter import Counter
from components.attacks.fgsm import fgsm
from components.attacks.gradient import frozen
from components.attacks.pgd import pgd
from components.attacks.threat import CELLS, MODALITIES, Budget, ThreatModel
from components.batch import Batch

Attack = Callable[..., Batch]

ATTACKS: dict[str, Attack] = {
    "fgsm": fgsm,
    "pgd": partial(pgd, keep="best"),
}

__all__ = [
    "ATTACKS",
    "CELLS",
    "MODALITIES",
    "Attack",
    "Budget",
    "Counter",
    "ThreatModel",
    "fgsm",
    "frozen",
    "pgd",
]
