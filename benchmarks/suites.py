"""What each attack of a suite breaks and costs, and whether a dearer suite breaks more.

    python -m benchmarks suites -- --artifacts artifacts/utd_mhad [--clips 40] [--runs amr-s0]

Every checkpoint under `artifacts/train`, on the same draw of test clips. `ratio` is the worst
model's passes (one clip forward or backward) for each clip and cell that stands in the end; it is
infinite when the dearer suite breaks more clips of a model than the suite.
"""

from collections import Counter
from typing import Any

import torch
from torch import nn

from benchmarks._bench import Result
from benchmarks.eval_cascade import THREAT, trained, trained_options
from components.attacks import CELLS
from components.batch import Batch
from components.evaluation import evaluate_model

EXPLICIT = True  # minutes a model
GOAL = 1200.0


def run(args: list[str]) -> Result:
    """Both suites on all models; prints a table for each."""
    parser = trained_options("suites", clips=40)
    parser.add_argument("--against", default="standard-1", help="`--against=`: no other suite")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    sides: dict[str, Any] = {}
    details: dict[str, Any] = {}
    for name, model, clips in trained(options.artifacts, options.clips, options.runs):
        suites = [options.suite, *([options.against] if options.against else [])]
        found = {suite: measure(model, clips, suite) for suite in suites}
        details[name] = found
        for suite, one in found.items():
            print(f"\n{name}, {suite}: {table(one)}", flush=True)
            sides[f"{name} {suite}"] = {
                **{cell: one["standing"][cell] for cell in CELLS},
                "passes a standing clip": one["per_standing"],
            }
    weaker = [
        name
        for name, found in details.items()
        if options.against and total(found[options.suite]) > total(found[options.against])
    ]
    ratio = max(found[options.suite]["per_standing"] for found in details.values())
    notes = f"{options.suite}, {options.clips} test clips a model, all three cells"
    if weaker:
        ratio, notes = float("inf"), f"{options.against} BREAKS MORE of {', '.join(weaker)}"
    return Result(
        "suites", ratio, GOAL, "<=", sides, unit="passes a standing clip", notes=notes,
        details=details,
    )  # fmt: skip


def measure(model: nn.Module, clips: Batch, suite: str) -> dict[str, Any]:
    """Clips broken by each attack and cell, its passes a clip, and what stands in the end."""
    found = evaluate_model(model, clips, THREAT, suite, checks=False)
    rows = found.records.to_pylist()
    broken: Counter[tuple[str, str]] = Counter()
    passes: Counter[str] = Counter()
    met: Counter[str] = Counter()
    for row in rows:
        if row["cell"] in CELLS:
            broken[row["attack"], row["cell"]] += bool(row["broke"])
            passes[row["attack"]] += row["forward"] + row["backward"]
            met[row["attack"]] += 1
    worst = found.summary["worst"]
    standing = {cell: round(worst[cell]["value"] * clips.size) for cell in CELLS}
    return {
        "clips": clips.size,
        "clean": round(found.summary["clean_acc"]["value"] * clips.size),
        "standing": standing,
        "attacks": {
            name: {
                "broken": {cell: broken[name, cell] for cell in CELLS},
                "passes_a_clip": passes[name] / met[name],
            }
            for name in met
        },
        "per_standing": passes.total() / max(sum(standing.values()), 1),
        "seconds": found.summary["cost"]["total"]["seconds"],
    }


def total(found: dict[str, Any]) -> int:
    """Clips that stand, over all cells."""
    return sum(found["standing"].values())


def table(found: dict[str, Any]) -> str:
    """What each attack adds, in the suite's order, as text."""
    head = f"{found['clean']} of {found['clips']} clips right on clean input"
    lines = [head, f"  {'attack':<20}{'rgb':>6}{'skeleton':>10}{'both':>6}{'passes a clip':>16}"]
    for name, one in found["attacks"].items():
        rgb, skeleton, both = (one["broken"][cell] for cell in CELLS)
        lines.append(f"  {name:<20}{rgb:>6}{skeleton:>10}{both:>6}{one['passes_a_clip']:>16.0f}")
    rgb, skeleton, both = (found["standing"][cell] for cell in CELLS)
    each = found["per_standing"]
    lines.append(f"  {'stand':<20}{rgb:>6}{skeleton:>10}{both:>6}{each:>16.0f} a standing one")
    return "\n".join(lines)
