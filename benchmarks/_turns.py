"""Processes that take turns on the machine in slices of seconds, so that its moods hit all alike.

A run of minutes a side is at the mercy of what else the machine does in those minutes. Here all
sides are alive at once and all but one are stopped (SIGSTOP), with every process they have started.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from tqdm import tqdm


class Side:
    """A command that writes the time of day to the file `$ENDS` after each piece of its work."""

    def __init__(self, command: Sequence[str], ends: Path) -> None:
        self.ends, self.log = ends, ends.with_suffix(".log")
        ends.touch()
        environment = {**os.environ, "ENDS": str(ends), "OMP_NUM_THREADS": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self.tree: set[psutil.Process] = set()
        self.pauses: list[tuple[float, float]] = []
        self.stopped = 0.0

    def finished(self) -> list[float]:
        """When each piece of work was done, as far as it is written."""
        return [float(line) for line in self.ends.read_text().split()]

    def stop(self) -> None:
        """Pause every process of the side."""
        self._send(signal.SIGSTOP)
        self.stopped = time.time()

    def go(self) -> None:
        """Let it run on."""
        self.pauses.append((self.stopped, time.time()))
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """End it, stopped or not."""
        self._send(signal.SIGKILL)
        self.process.wait()
        psutil.wait_procs(self.tree, timeout=10)

    def durations(self, skip: int, count: int) -> list[float]:
        """Seconds of running from one end to the next: `count` of them after the first `skip`."""
        ends = self.finished()[skip : skip + count + 1]
        return [
            b - a - sum(max(0.0, min(b, y) - max(a, x)) for x, y in self.pauses)
            for a, b in zip(ends, ends[1:], strict=False)
        ]

    def _send(self, what: signal.Signals) -> None:
        # Children of children leave the tree when their parent ends, so the known ones are kept.
        found = {psutil.Process(self.process.pid)} if self.process.poll() is None else set()
        for known in self.tree | found:
            try:
                found |= {known, *known.children(recursive=True)}
            except psutil.NoSuchProcess:
                found.discard(known)
        self.tree = found
        for process in found:
            try:
                process.send_signal(what)
            except psutil.NoSuchProcess:
                continue


@contextmanager
def started(commands: Mapping[str, Sequence[str]], folder: Path) -> Iterator[dict[str, Side]]:
    """All sides, each past its first two pieces of work and paused; all are killed at the end."""
    sides: dict[str, Side] = {}
    try:
        for i, (name, command) in enumerate(commands.items()):
            side = sides[name] = Side(command, folder / f"side{i}.ends")
            while len(side.finished()) < 2:
                _alive(name, side)
                time.sleep(0.1)
            side.stop()
        yield sides
    finally:
        for side in sides.values():
            side.kill()


def take_turns(
    sides: dict[str, Side], pieces: int, *, slice_s: float = 6.0
) -> dict[str, list[float]]:
    """Seconds of `pieces` pieces of work of every side; whoever has done least goes next."""
    skip = {name: len(side.finished()) for name, side in sides.items()}
    ran = dict.fromkeys(sides, 0.0)
    with tqdm(total=pieces * len(sides), unit="piece", file=sys.stderr) as bar:
        while True:
            done = {n: min(len(s.finished()) - skip[n] - 1, pieces) for n, s in sides.items()}
            bar.update(sum(max(0, d) for d in done.values()) - bar.n)
            if min(done.values()) >= pieces:
                break
            name = min(sides, key=lambda n: (done[n], ran[n]))
            _alive(name, sides[name])
            sides[name].go()
            time.sleep(slice_s)
            sides[name].stop()
            ran[name] += slice_s
    return {name: side.durations(skip[name], pieces) for name, side in sides.items()}


def _alive(name: str, side: Side) -> None:
    if side.process.poll() is not None:
        last = "\n".join(side.log.read_text().splitlines()[-20:])
        raise RuntimeError(f"{name} ended too early:\n{last}")
