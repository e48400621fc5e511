"""Tests in a fork of a process that has the heavy libraries loaded: that saves seconds a run.

The project's own packages are not among what is loaded, so each fork imports what lies on disk.
"""

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

HEAVY = (
    "torch", "numpy", "pyarrow", "pydantic", "hypothesis", "optuna", "scipy.stats", "yaml",
    "safetensors.torch", "ray", "ray.train", "mlflow", "pytest",
)  # fmt: skip
OURS = ("components", "pipelines", "mlflow_tracking", "benchmarks", "tests")
TIMEOUT = -1  # in place of an exit code


def preload() -> None:
    """Import the libraries that all tests import."""
    for name in HEAVY:
        importlib.import_module(name)


def run_tests(
    root: Path,
    files: Sequence[str],
    log: Path,
    *,
    timeout: float,
    skip: Sequence[str] = (),
    whole: bool = False,
) -> int:
    """pytest's exit code for `files` of the project at `root`, stopped at the first failure.

    TIMEOUT when it took longer than `timeout` seconds. `skip`: tests left out, by pytest's names;
    `whole`: go on after a failure. What pytest prints goes to `log`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            status = _child(root, files, log, skip, whole)
        except BaseException:  # noqa: BLE001 - whatever it is, the fork must not return
            with log.open("a") as file:
                traceback.print_exc(file=file)
        os._exit(status)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            _end_group(child)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    _end_group(child)
    os.waitpid(child, 0)
    return TIMEOUT


def _child(root: Path, files: Sequence[str], log: Path, skip: Sequence[str], whole: bool) -> int:
    os.setsid()
    out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(out, stream)
    # Whoever called may have put something else in their place.
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    os.chdir(root)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    for name in list(sys.modules):
        if name.split(".")[0] in OURS:
            del sys.modules[name]
    sys.path.insert(0, str(root))
    import pytest
    import torch

    torch.set_num_threads(1)
    words = [*([] if whole else ["-x"]), "-q", "-p", "no:cacheprovider", "--no-header", "--tb=line"]
    for name in skip:
        words += ["--deselect", name]
    status = int(pytest.main([*words, *files]))
    sys.stdout.flush()
    return status


def _end_group(child: int) -> None:
    # What a test may have started is in the child's session; it ends with it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
