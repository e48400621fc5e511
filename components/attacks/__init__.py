"""Attacks on (video, skeleton) pairs under a budget per modality; all share one contract.

`attack(model, batch, threat, *, seed, **parameters) -> Batch`: see `docs/attacks.md`.
"""

from collections.abc import Callable
from functools import partial

from components.attacks.adapters import SingleStream
from components.attacks.adaptive import ADAPTIVE, applicable
from components.attacks.apgd import apgd
from components.attacks.apgd_targeted import apgd_targeted
from components.attacks.counter import Counter
from components.attacks.cw import cw
from components.attacks.eot import eot
from components.attacks.fgsm import fgsm
from components.attacks.flicker import flicker
from components.attacks.gradient import Model, frozen
from components.attacks.hard_label import hard_label
from components.attacks.mifgsm import mifgsm
from components.attacks.pgd import pgd
from components.attacks.plausible import acceleration_change, bone_change
from components.attacks.smart import smart
from components.attacks.sparse import sparse_frames
from components.attacks.square import square
from components.attacks.threat import CELLS, MODALITIES, Budget, ThreatModel
from components.attacks.transfer import transfer
from components.attacks.universal import fit_universal, universal
from components.batch import Batch

Attack = Callable[..., Batch]

# Runnable as they stand. Two more want something of the caller: `transfer` a source model and
# `universal` a fitted perturbation; `eot` wraps any attack for models with random output.
ATTACKS: dict[str, Attack] = {
    "fgsm": fgsm,
    "pgd": partial(pgd, keep="best"),
    "mifgsm": mifgsm,
    "cw": cw,
    "apgd_ce": partial(apgd, loss="ce", name="apgd_ce"),
    "apgd_dlr": partial(apgd, loss="dlr", name="apgd_dlr"),
    "apgd_t": apgd_targeted,
    "square": square,
    "hard_label": hard_label,
    "smart": smart,
    "sparse_frames": sparse_frames,
    "flicker": flicker,
    "eot": eot,
    **ADAPTIVE,
}

__all__ = [
    "ADAPTIVE",
    "ATTACKS",
    "CELLS",
    "MODALITIES",
    "Attack",
    "Budget",
    "Counter",
    "Model",
    "SingleStream",
    "ThreatModel",
    "applicable",
    "bone_change",
    "eot",
    "fgsm",
    "fit_universal",
    "frozen",
    "acceleration_change",
    "pgd",
    "transfer",
    "universal",
]
