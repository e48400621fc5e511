"""Decides which clips the sample has: names, actors, cameras; the first step of the generator.

Classes keep their NTU numbers and subjects theirs, so every published protocol splits the sample
as it would split the real set. Each class has a twin that one of the two streams can hardly tell
from it; docs/sample.md says which.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from components.errors import UserError
from components.ntu.ids import ClipId
from components.ntu.protocol import XSUB60_TRAIN
from components.ntu.roster import CAMERAS, REPLICATIONS, missing_clips, subjects_by_setup

ACTIONS = {
    1: "drink water",
    3: "brush teeth",
    7: "throw",
    10: "clapping",
    11: "reading",
    12: "writing",
    28: "phone call",
    29: "play with phone/tablet",
    31: "point to something",
    34: "rub two hands",
    50: "punch/slap",
    58: "shaking hands",
}
TWO_PERSON = frozenset({50, 58})
DISTRACTORS = ("cup", "brush", "phone")

# Subjects of NTU-RGB+D 60 in the order in which they are taken, so that any first three or more
# have all splits of xsub60; of the first 20: 11 train, 3 validation, 6 test.
SUBJECTS: tuple[int, ...] = (
    *(1, 3, 2, 4, 6, 8, 13, 5, 7, 15, 16, 10, 17, 9, 18, 11, 19, 25, 12, 27),
    *(20, 14, 28, 21, 31, 22, 34, 23, 35, 24, 38, 26, 29, 30, 32, 33, 36, 37, 39, 40),
)
VALIDATION = frozenset({2, 5, 9, 14})
LAST_SETUP = 17  # later setups hold actions above 60 only


@dataclass(frozen=True, kw_only=True)
class Style:
    """What all clips of one sample share.

    width, height: of the videos in pixels; frames: fewest and most frames of a clip;
    skeleton_noise: sensor noise at 3 m distance, in metres
    """

    seed: int
    width: int = 192
    height: int = 108
    frames: tuple[int, int] = (24, 32)
    skeleton_noise: float = 0.02
    subjects: int = 20  # of NTU-60's 40: enough for four to validate, and quick to write


def plan_clips(subjects: int, clips_per_class: int) -> list[ClipId]:
    """The names of all clips without planted faults, sorted; every class has equally many.

    All are names that NTU-RGB+D really has, none of them on the list of missing skeletons.
    Raises ValueError when there are fewer names than asked for.
    """
    clips = []
    for action in ACTIONS:
        names = _names(action, SUBJECTS[:subjects])
        if clips_per_class > len(names):
            raise UserError(
                f"sample.clips_per_class={clips_per_class} is more than the {len(names)} names "
                f"that {subjects} subjects have for A{action:03d}; ask for fewer clips or "
                f"more subjects (at most {len(SUBJECTS)})"
            )
        clips += names[:clips_per_class]
    return sorted(clips)


def _names(action: int, people: tuple[int, ...]) -> list[ClipId]:
    """All names of a class, one clip of every subject before the second of any."""
    setups = {s: names for s, names in subjects_by_setup().items() if s <= LAST_SETUP}
    turns: list[tuple[int, int, ClipId]] = []
    for who, subject in enumerate(people):
        places = [s for s, there in setups.items() if subject in there]
        # Start elsewhere with every class and subject, so that no camera or room tells the class.
        begin = (who + action) % len(places)
        turn = 0
        for place in (*places[begin:], *places[:begin]):
            for view in range(len(CAMERAS) * len(REPLICATIONS)):
                replication = REPLICATIONS[view % len(REPLICATIONS)]
                camera = CAMERAS[(who + action + view // 2 + view % 2) % len(CAMERAS)]
                name = ClipId(place, camera, subject, replication, action)
                if str(name) not in missing_clips():
                    turns.append((turn, who, name))
                    turn += 1
    return [name for _, _, name in sorted(turns)]


def performance_of(clip: ClipId) -> str:
    """What all cameras that film one performance have in common."""
    return str(clip._replace(camera=0))


def side_of(subject: int) -> str:
    """ "train", "val" or "test" under xsub60."""
    if subject in VALIDATION:
        return "val"
    return "train" if subject in XSUB60_TRAIN else "test"


def partners(subject: int, subjects: int) -> list[int]:
    """Who may act opposite `subject`: others on the same side of xsub60, so nobody leaks over."""
    people = [p for p in SUBJECTS[:subjects] if p != subject]
    return [p for p in people if side_of(p) == side_of(subject)] or people


def random_state(seed: int, *words: object) -> np.random.Generator:
    """A generator that depends on the seed and these words alone, not on worker or order."""
    text = "/".join(str(w) for w in (seed, *words))
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
