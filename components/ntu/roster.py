"""Which clips NTU-RGB+D consists of: the full lists of names, and the official missing ones.

Every setup was recorded with its own subjects, 3 cameras and 2 replications; setups 1-17 hold
actions 1-60 and setups 18-32 actions 61-120, without a hole. `subjects_by_setup.txt` gives the
subjects. So the lists have 56,880 and 114,480 names, as published. `missing_120.txt` is the list
of samples with missing or incomplete skeletons from shahroudy/NTURGB-D (535 names, among them the
302 of its list for NTU-RGB+D 60).
"""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from components.errors import UserError
from components.ntu.ids import ClipId

CAMERAS = (1, 2, 3)
REPLICATIONS = (1, 2)
LAST_SETUP_60 = 17


@cache
def subjects_by_setup() -> dict[int, tuple[int, ...]]:
    """The subjects that were recorded in each of the 32 setups."""
    rows = (line.partition(":") for line in _resource("subjects_by_setup.txt").splitlines())
    return {int(setup): tuple(map(int, names.split())) for setup, _, names in rows}


def all_clips(actions: int) -> Iterator[ClipId]:
    """Every clip of NTU-RGB+D 60 or 120 (`actions` is 60 or 120), in no promised order."""
    if actions not in (60, 120):
        raise UserError(f"NTU-RGB+D has 60 or 120 actions, got {actions}")
    for setup, subjects in subjects_by_setup().items():
        first = 1 if setup <= LAST_SETUP_60 else 61
        if first > actions:
            continue
        for subject in subjects:
            for camera in CAMERAS:
                for replication in REPLICATIONS:
                    for action in range(first, first + 60):
                        yield ClipId(setup, camera, subject, replication, action)


@cache
def missing_clips() -> frozenset[str]:
    """Names on the official lists of samples with missing or incomplete skeletons.

    The list of 120 contains that of 60, so it serves both (a test counts them).
    """
    return frozenset(_resource("missing_120.txt").split())


def _resource(name: str) -> str:
    return (files("components.ntu") / name).read_text(encoding="ascii")
