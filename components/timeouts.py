"""A limit for calls that have none: into the kernel, a decoder, a library that waits for ever."""

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

Out = TypeVar("Out")


class OutOfTime(TimeoutError):
    """The limit is over; what the call itself raised is no OutOfTime."""


def in_time(seconds: float, work: Callable[[], Out], name: str = "in-time") -> Out:
    """What `work()` gives or raises; OutOfTime when that takes longer than `seconds`.

    Nothing can end such a call, so it goes on in a daemon thread of its own and is left behind.
    """
    said: queue.SimpleQueue[tuple[bool, Out | BaseException]] = queue.SimpleQueue()

    def run() -> None:
        try:
            said.put((True, work()))
        except BaseException as error:  # noqa: BLE001 - handed over, and raised by who waits
            said.put((False, error))

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        done, answer = said.get(timeout=seconds)
    except queue.Empty:
        raise OutOfTime(f"no answer in {seconds:g} s") from None
    if done:
        return answer  # type: ignore[return-value]
    assert isinstance(answer, BaseException)
    raise answer
