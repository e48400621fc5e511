"""Progress in a pipe: plain lines with the time left, few of them, and no bar."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from components import progress_bar as module
from components.progress_bar import Progress, progress
from tests._support.cli import in_terminal

ROOT = Path(__file__).parents[2]
STEP = (
    "from components.progress_bar import progress; import time\n"
    "for i in progress(range(4), 4, 'step', 'clip'): time.sleep(0.2)"
)


def test_a_line_says_how_long_it_will_take() -> None:
    shown = Progress(40, "evaluate amr-s0", "task")
    shown.done = 11
    assert shown.line(20.0) == "evaluate amr-s0: 11 of 40 tasks, about 58 s left"
    assert shown.line(200.0).endswith("about 10 min left")
    assert shown.line(2000.0).endswith("about 1.6 h left")


def test_lines_come_now_and_then_and_none_at_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO, logger="progress"):
        assert list(progress(range(70), 70, "step", "clip")) == list(range(70))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3 and told[0].startswith("step: 4 of 70 clips, about ")


def test_a_short_step_says_nothing_in_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-c", STEP], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_terminal_has_a_bar_with_the_time_left() -> None:
    # A new terminal has no size, and a bar then no room.
    sized = 'stty rows 24 cols 90; exec "$0" -c "$1"'
    shown = in_terminal(["bash", "-c", sized, sys.executable, STEP])
    assert "step:" in shown and "<00:0" in shown and "\033[3" not in shown
