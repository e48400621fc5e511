"""Attacks on (video, skeleton) pairs under a budget per modality; all share one contract.

`attack(model, batch, threat, *, seed, **parameters) -> Batch`: see `docs/attacks.md`. What this
package hands out looks at clips, budgets and model once, before the first pass (`checked.py`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from components.attacks.adapters import SingleStream
from components.attacks.adaptive import ADAPTIVE, applicable
from components.attacks.apgd import apgd
from components.attacks.apgd_targeted import apgd_targeted
from components.attacks.budget import Budget
from components.attacks.checked import Attack, checked, looked_at
from components.attacks.counter import Counter
from components.attacks.cw import cw
from components.attacks.eot import eot as _eot
from components.attacks.fgsm import fgsm as _fgsm
from components.attacks.flicker import flicker
from components.attacks.gradient import Model, frozen
from components.attacks.hard_label import hard_label
from components.attacks.margin_pgd import margin_pgd
from components.attacks.mifgsm import mifgsm
from components.attacks.pgd import pgd as _pgd
from components.attacks.plausible import acceleration_change, bone_change
from components.attacks.smart import smart
from components.attacks.sparse import sparse_frames
from components.attacks.square import square
from components.attacks.threat import CELLS, MODALITIES, ThreatModel
from components.attacks.transfer import transfer as _transfer
from components.attacks.universal import fit_universal as _fit_universal
from components.attacks.universal import universal as _universal
from components.batch import Batch

fgsm, pgd, eot = (checked(attack) for attack in (_fgsm, _pgd, _eot))
transfer = checked(_transfer, asks="source")
universal = checked(_universal, asks="")


def fit_universal(
    model: Model,
    batches: Sequence[Batch],
    threat: ThreatModel,
    *,
    unit: str = "metres",
    **parameters: Any,
) -> dict[str, Tensor]:
    """`components.attacks.universal.fit_universal` behind the same look at its clips."""
    return _fit_universal(
        model, [looked_at(b, threat, unit) for b in batches], threat, **parameters
    )


# Runnable as they stand. Two more want something of the caller: `transfer` a source model and
# `universal` a fitted perturbation; `eot` wraps any attack for models with random output.
ATTACKS: dict[str, Attack] = {
    "fgsm": fgsm,
    "pgd": checked(partial(_pgd, keep="best")),
    "margin_pgd": checked(margin_pgd),
    "margin_pgd_t": checked(
        partial(margin_pgd, steps=0, n_targets=9, target_steps=22, name="margin_pgd_t")
    ),
    "mifgsm": checked(mifgsm),
    "cw": checked(cw),
    "apgd_ce": checked(partial(apgd, loss="ce", name="apgd_ce")),
    "apgd_dlr": checked(partial(apgd, loss="dlr", name="apgd_dlr")),
    "apgd_t": checked(apgd_targeted),
    "square": checked(square),
    "hard_label": checked(hard_label),
    "smart": checked(smart),
    "sparse_frames": checked(sparse_frames),
    "flicker": checked(flicker),
    "eot": eot,
    **{name: checked(attack) for name, attack in ADAPTIVE.items()},
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
