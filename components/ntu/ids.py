"""Clip names: where every path through the pipeline starts, and what every random seed hangs on."""

import re
from typing import NamedTuple

from components.errors import UserError

_PATTERN = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")


class ClipId(NamedTuple):
    """The parts of `SsssCcccPpppRrrrAaaa`, each 1-999; sorts as the name does."""

    setup: int
    camera: int
    subject: int
    replication: int
    action: int

    @classmethod
    def parse(cls, name: str) -> "ClipId":
        """The parts of a full clip name; ValueError when it is none."""
        match = _PATTERN.fullmatch(name)
        if match is None:
            raise UserError(f"{name!r} is no clip name; expected a form like S001C002P003R002A013")
        parts = cls(*map(int, match.groups()))
        if 0 in parts:
            raise UserError(f"{name!r}: setup, camera, subject, replication, action start at 1")
        return parts

    def __str__(self) -> str:
        return "S{:03d}C{:03d}P{:03d}R{:03d}A{:03d}".format(*self)


def make_clip_id(setup: int, camera: int, subject: int, replication: int, action: int) -> ClipId:
    """A checked id from numbers; ValueError when one does not fit into three digits."""
    clip = ClipId(setup, camera, subject, replication, action)
    for part, value in zip(clip._fields, clip, strict=True):
        if not 1 <= value <= 999:
            raise UserError(f"{part} {value} is outside 1-999, the range a clip name can hold")
    return clip
