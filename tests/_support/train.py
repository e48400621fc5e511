"""Settings of one training step, written flat."""

from dataclasses import replace
from typing import Any

from components.config.train import TrainSection

ATTACK = ("steps", "loss", "rel_alpha", "early_stop", "modalities")


def train_settings(**changes: Any) -> TrainSection:
    """The defaults with changes; those of the attack by their own names. Five steps by default."""
    attack = {"steps": 5, **{k: v for k, v in changes.items() if k in ATTACK}}
    rest = {k: v for k, v in changes.items() if k not in ATTACK}
    base = TrainSection()
    return replace(base, attack=replace(base.attack, **attack), **rest)
