"""What a data set must answer to be ingested: which clips there are, their people, their video.

An adapter is one module with a `Source`; docs/data.md shows one in full. It finds clips by name
alone, reads the people of one clip, and opens one clip's video. Everything after that (checks,
crop, shards, splits, batches) is shared.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from components.address import readable
from components.errors import UserError
from components.ntu.ids import ClipId
from components.ntu.people import People
from components.ntu.video import Frames, VideoInfo


@dataclass(frozen=True)
class Found:
    """One clip found by name. Paths are relative to the data folder; "" = there is no such file.

    `first` and `last` are the true frame numbers of a clip inside a longer recording (last
    included; -1 = to the end).
    """

    clip: ClipId
    video: str = ""
    skeleton: str = ""
    first: int = 0
    last: int = -1
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """All clips by name, and the files whose names are no clip's."""

    clips: list[Found]
    others: list[str] = field(default_factory=list)

    @property
    def strangers(self) -> list[str]:
        """The files whose names are no clip's, as they are shown."""
        return [readable(path) for path in self.others]


@dataclass(frozen=True)
class Source:
    """One data set. All functions take the data folder and raise Rejected for a bad clip.

    `unit` is the unit of the joints, `example` a file name as `find` expects it. `same_clock`:
    frame i of the video belongs to frame i of the skeleton; otherwise the two cover the same span
    of time at rates of their own. `files` are those whose content decides what a clip is.
    `whole_file` is the path of a clip's video where one file, from its first frame to its last, is
    one clip: `shard.decode=fast` reads it by itself. `digest` is of what decides a clip where its
    files hold other clips too; None = of `files`. `class_name` names an action number; a data
    set without names shows the number. `note` is what whoever reads a figure must know of the data;
    index, card and report say it.
    """

    name: str
    unit: str
    example: str
    find: Callable[[Path], Listing]
    people: Callable[[Path, Found], People]
    probe: Callable[[Path, Found], VideoInfo]
    frames: Callable[[Path, Found, int], Frames]
    same_clock: bool = True
    files: Callable[[Path, Found], list[Path]] = field(
        default=lambda root, found: [
            inside(root, name) for name in (found.video, found.skeleton) if name
        ]
    )
    class_name: Callable[[int], str] = "A{:03d}".format
    whole_file: Callable[[Path, Found], Path] | None = None
    digest: Callable[[Path, Found], str] | None = None
    note: str = ""


def inside(root: Path, name: str) -> Path:
    """`root / name`, refusing a name that would leave the folder (ValueError)."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise UserError(f"{name!r} does not stay inside the data folder {root}")
    return root / path
