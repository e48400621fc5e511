"""Evaluation protocols: which clips train, validate and test.

Sources: shahroudy/NTURGB-D and the papers of NTU-RGB+D 60 and 120; iMiGUE's evaluation protocol.
The validation subjects 2, 5, 9, 14 are those that MFAS and MMTM hold out of cross-subject training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from components.config.data import DataSection
from components.errors import UserError

XSUB60_TRAIN = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
XSUB120_TRAIN = (
    *XSUB60_TRAIN,
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86),
    *(89, 91, 92, 93, 94, 95, 97, 98, 100, 103),
)
XVIEW60_TRAIN_CAMERAS = (2, 3)
XSET120_TRAIN_SETUPS = tuple(range(2, 33, 2))
IMIGUE_TRAIN = (
    *(2, 4, 5, 6, 9, 10, 12, 13, 14, 15, 17, 18, 20, 21, 22, 23, 25, 28, 29, 30, 31, 35, 36, 38),
    *(39, 41, 42, 43, 44, 46, 47, 48, 52, 53, 59, 61, 62),
)

# protocol -> (part of the clip id that decides, its values for training, highest action or None)
PROTOCOLS: dict[str, tuple[str, tuple[int, ...], int | None]] = {
    "xsub60": ("subject", XSUB60_TRAIN, 60),
    "xview60": ("camera", XVIEW60_TRAIN_CAMERAS, 60),
    "xsub120": ("subject", XSUB120_TRAIN, 120),
    "xset120": ("setup", XSET120_TRAIN_SETUPS, 120),
    "imigue": ("subject", IMIGUE_TRAIN, None),
}


@dataclass(frozen=True)
class Parts:
    """Columns of clip ids, one value a clip: int64 [n] each."""

    setup: np.ndarray
    camera: np.ndarray
    subject: np.ndarray
    action: np.ndarray

    def __len__(self) -> int:
        return len(self.subject)


@dataclass(frozen=True)
class Assignment:
    """Masks over the clips, bool [n] each; no clip is in two. `notes` says what was chosen how."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...] = field(default=())

    @property
    def outside(self) -> np.ndarray:
        """Clips that the protocol does not use, such as A061 and up under xsub60."""
        return ~(self.train | self.val | self.test)


def assign(parts: Parts, data: DataSection) -> Assignment:
    """Split clips by the chosen protocol, then carve validation out of the training clips.

    Raises ValueError, saying what is there and what to change, when a split has no clip.
    """
    column, wanted, last_action = _rule(data)
    values = getattr(parts, column)
    inside = np.ones(len(parts), bool) if last_action is None else parts.action <= last_action
    training = inside & np.isin(values, wanted)
    test = inside & ~training
    where = f"data.protocol={data.protocol} (training {column}s {_brief(wanted)})"
    if not training.any():
        raise UserError(
            f"no clip to train on under {where}; the clips have {column}s {_brief(values)}"
            + _hint(parts, inside)
        )
    if not test.any():
        raise UserError(
            f"no clip to test on under {where}: every {column} there is trains "
            f"({_brief(values)}); name fewer, or choose another protocol" + _hint(parts, inside)
        )
    val, notes = _carve(parts, training, data)
    return Assignment(training & ~val, val, test, notes)


def _rule(data: DataSection) -> tuple[str, Sequence[int], int | None]:
    if data.protocol != "custom":
        return PROTOCOLS[data.protocol]
    name, numbers = next((n, v) for n, v in data.custom.items() if v)
    return name.removesuffix("s"), numbers, None


def _carve(
    parts: Parts, training: np.ndarray, data: DataSection
) -> tuple[np.ndarray, tuple[str, ...]]:
    """A validation mask inside `training`: the configured setups or subjects, else a fall-back."""
    choices = (("setup", data.val_setups), ("subject", data.val_subjects))
    for column, listed in choices:
        if not listed:
            continue
        val = training & np.isin(getattr(parts, column), listed)
        if val.any():
            if val[training].all():
                raise UserError(
                    f"data.val_{column}s={_brief(listed)} takes every training clip; name fewer"
                )
            used = np.unique(getattr(parts, column)[val])
            return val, (f"validation: training {column}s {_brief(used)}",)
    asked = "; ".join(f"data.val_{c}s={_brief(v)}" for c, v in choices if v) or "no list given"
    for column in ("subject", "setup", "camera"):
        present = np.unique(getattr(parts, column)[training])
        if len(present) > 1:
            val = training & (getattr(parts, column) == present[-1])
            note = f"validation: last training {column} {present[-1]} ({asked} matches no clip)"
            return val, (note,)
    raise UserError(
        "the training clips have one subject, one setup and one camera, so no validation set can "
        "be kept apart from them; add training subjects"
    )


def _brief(values: Sequence[int] | np.ndarray, most: int = 12) -> str:
    distinct = sorted({int(v) for v in values})
    shown = " ".join(map(str, distinct[:most]))
    return shown + (f" ... ({len(distinct)} in all)" if len(distinct) > most else "")


def _hint(parts: Parts, inside: np.ndarray) -> str:
    if inside.all():
        return ""
    return f"; {int((~inside).sum())} of {len(parts)} clips have actions outside the protocol"
