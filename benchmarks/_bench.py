"""The one form of a benchmark: both sides in one run, a ratio, a goal, the place measured."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Result:
    """A finished benchmark. `ratio` is held against `goal`: `sense` ">=" or "<="."""

    name: str
    ratio: float
    goal: float
    sense: str
    sides: dict[str, Any]
    unit: str = ""
    notes: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the ratio meets the goal."""
        return self.ratio >= self.goal if self.sense == ">=" else self.ratio <= self.goal


def spread(values: list[float]) -> dict[str, float | int]:
    """Minimum, median and maximum of repeated measurements."""
    return {
        "min": min(values),
        "median": statistics.median(values),
        "max": max(values),
        "n": len(values),
    }


def paired(
    sides: Mapping[str, Callable[[], Any]],
    *,
    repeats: int = 7,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each side, run in turn A B A B ..., so that drift hits both alike.

    `clock=time.process_time` counts this process' CPU seconds, which busy neighbours touch less.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmup + repeats):
        for name, run in sides.items():
            _synchronise()
            start = clock()
            run()
            _synchronise()
            if turn >= warmup:
                times[name].append(clock() - start)
    return times


def ratio_of(times: Mapping[str, list[float]], numerator: str, denominator: str) -> float:
    """Median of the pairwise ratios of two sides."""
    return statistics.median(
        a / b for a, b in zip(times[numerator], times[denominator], strict=True)
    )


def environment() -> dict[str, Any]:
    """Where the figures come from."""
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "commit": _commit(),
    }


def finish(result: Result, out: Path | None = None) -> int:
    """Print the result, write `artifacts/bench/NAME.json`; 0 when the goal holds, else 1."""
    folder = out or Path(os.environ.get("BENCH_OUT", ROOT / "artifacts" / "bench"))
    folder.mkdir(parents=True, exist_ok=True)
    body = {
        "name": result.name,
        "ratio": result.ratio,
        "goal": f"{result.sense} {result.goal}",
        "holds": result.holds,
        "unit": result.unit,
        "sides": result.sides,
        "notes": result.notes,
        "details": result.details,
        "environment": environment(),
    }
    path = folder / f"{result.name}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(body, indent=2) + "\n")
    temporary.replace(path)
    print(f"\n{result.name}: {result.notes}".rstrip(": "))
    for side, figures in result.sides.items():
        print(f"  {side:<28} {_line(figures)}")
    verdict = "holds" if result.holds else "DOES NOT HOLD"
    print(f"  ratio {result.ratio:.3f} (goal {result.sense} {result.goal}): {verdict}")
    print(f"  written to {path}")
    return 0 if result.holds else 1


def _line(figures: Any) -> str:
    if isinstance(figures, Mapping):
        return "  ".join(f"{k} {_line(v)}" for k, v in figures.items())
    return f"{figures:.5g}" if isinstance(figures, float) else str(figures)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError) as error:
        print(f"no git commit to record: {error}", file=sys.stderr)
        return None
    return done.stdout.strip()
