"""How far a long step is, with the time left: a bar on a terminal, plain lines elsewhere.

A file or pipe gets a line now and then, and none for a step that is over soon: a bar that draws
over itself is thousands of characters there.
"""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger("progress")
Item = TypeVar("Item")
FIRST, EVERY = 5.0, 30.0  # seconds until the first line, and between two


class Progress:
    """A context that counts up to `total`; `what` is being done, in `unit`s."""

    def __init__(self, total: int, what: str, unit: str) -> None:
        self.total, self.what, self.unit = total, what, unit
        self.done = 0
        self._bar: tqdm | None = None
        self._first = 0.0  # when the first was done; what came before was the start
        self._next = time.monotonic() + FIRST

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=self.total, desc=self.what, unit=self.unit, mininterval=0.5, leave=False
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, count: int = 1) -> None:
        """So many more are done."""
        self.done += count
        self._first = self._first or time.monotonic()
        if self._bar is not None:
            self._bar.update(count)
        elif (now := time.monotonic()) >= self._next and 1 < self.done < self.total:
            self._next = now + EVERY
            log.info(self.line(now - self._first))

    def line(self, seconds: float) -> str:
        """What stands in a file so many seconds after the first was done."""
        left = seconds / (self.done - 1) * (self.total - self.done)
        return f"{self.what}: {self.done} of {self.total} {self.unit}s, about {_clock(left)} left"


def progress(items: Iterable[Item], total: int, what: str, unit: str) -> Iterator[Item]:
    """`items`, counted as they pass."""
    with Progress(total, what, unit) as shown:
        for item in items:
            yield item
            shown.update()


def _clock(seconds: float) -> str:
    """The form `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
