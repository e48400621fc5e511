"""Nothing that one clip's files do may hold up the others: reading a clip ends in bounded time.

A damaged file can keep a demuxer or a decoder busy for hours, and a disk that has gone away blocks
a read inside the kernel. No call into such code can be told to stop, so each clip is read in a
thread of its own; whoever waits for it goes on when the time is over. The thread ends at its next
packet; one that is stuck below Python for good ends with its process.
"""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from components.ntu.skeleton import Rejected
from components.ntu.video import time_limit
from components.timeouts import OutOfTime, in_time

SLOW = "too-slow"
GRACE = 1.0  # for the thread to find out by itself, and to say where it was

Out = TypeVar("Out")


def within(seconds: float, read: Callable[[], Out]) -> Out:
    """What `read()` gives or raises; Rejected (too-slow) when that takes longer than `seconds`.

    0 = as long as it takes.
    """
    if not seconds:
        return read()

    def work() -> Out:
        with time_limit(seconds):
            return read()

    try:
        return in_time(seconds + GRACE, work, "clip")
    except OutOfTime:
        raise Rejected(SLOW, f"not read after {seconds:g} s") from None


def require_plain(path: Path) -> None:
    """Rejected (file-unreadable) for a pipe, a socket or a device: reading one may never end."""
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise Rejected("file-unreadable", f"{path.name} is no regular file")
