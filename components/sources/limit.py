"""Nothing that one clip's files do may hold up the others: reading a clip ends in bounded time.

A damaged file can keep a demuxer or a decoder busy for hours, and a disk that has gone away blocks
a read inside the kernel. No call into such code can be told to stop, so each clip is read in a
thread of its own; whoever waits for it goes on when the time is over. The thread ends at its next
packet; one that is stuck below Python for good ends with its process.
"""

import queue
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from components.ntu.skeleton import Rejected
from components.ntu.video import time_limit

SLOW = "too-slow"
GRACE = 1.0  # for the thread to find out by itself, and to say where it was

Out = TypeVar("Out")


def within(seconds: float, read: Callable[[], Out]) -> Out:
    """What `read()` gives or raises; Rejected (too-slow) when that takes longer than `seconds`.

    0 = as long as it takes.
    """
    if not seconds:
        return read()
    answers: queue.SimpleQueue[tuple[bool, Out | BaseException]] = queue.SimpleQueue()

    def work() -> None:
        try:
            with time_limit(seconds):
                answers.put((True, read()))
        except BaseException as error:  # noqa: BLE001 - handed over, and raised by who waits
            answers.put((False, error))

    threading.Thread(target=work, name="clip", daemon=True).start()
    try:
        done, answer = answers.get(timeout=seconds + GRACE)
    except queue.Empty:
        raise Rejected(SLOW, f"not read after {seconds:g} s") from None
    if done:
        return answer  # type: ignore[return-value]
    assert isinstance(answer, BaseException)
    raise answer


def require_plain(path: Path) -> None:
    """Rejected (file-unreadable) for a pipe, a socket or a device: reading one may never end."""
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise Rejected("file-unreadable", f"{path.name} is no regular file")
