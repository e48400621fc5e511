"""Sides of a benchmark take turns: who is paused does nothing, and its pause is not counted."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks._turns import Side, started, take_turns

COUNT = (
    "import os, time\n"
    "while True:\n"
    "    open(os.environ['ENDS'], 'a').write(f'{time.time()}\\n'); time.sleep(0.02)\n"
)
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {COUNT!r}])"


def test_a_stopped_side_does_nothing_with_any_of_its_processes(tmp_path: Path) -> None:
    with started({"a": [sys.executable, "-c", PARENT]}, tmp_path) as sides:
        side = sides["a"]
        before = len(side.finished())
        time.sleep(0.3)
        assert len(side.finished()) == before
        side.go()
        while len(side.finished()) == before:
            time.sleep(0.01)
        processes = [psutil.Process(side.process.pid), *side.tree]
        assert len(side.tree) == 2
    assert not any(p.is_running() and p.status() != "zombie" for p in processes)


def test_all_sides_do_the_same_number_of_pieces(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COUNT]
    with started({"a": command, "b": command}, tmp_path) as sides:
        periods = take_turns(sides, 20, slice_s=0.1)
    assert [len(values) for values in periods.values()] == [20, 20]
    assert all(value > 0 for values in periods.values() for value in values)


def test_time_spent_stopped_is_taken_out(tmp_path: Path) -> None:
    side = Side([sys.executable, "-c", ""], tmp_path / "ends")
    side.kill()
    side.ends.write_text("10.0\n12.0\n20.0\n21.0\n")
    side.pauses = [(11.0, 11.5), (13.0, 18.0), (20.5, 20.75), (30.0, 40.0)]
    assert side.durations(0, 3) == pytest.approx([1.5, 3.0, 0.75])
    assert side.durations(1, 1) == pytest.approx([3.0])


def test_a_side_that_fails_says_its_last_lines(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="(?s)b ended too early.*no such thing"),
        started({"b": [sys.executable, "-c", "raise SystemExit('no such thing')"]}, tmp_path),
    ):
        pass
