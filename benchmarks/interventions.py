"""Is AMR's attention alive? Its weights frozen, shuffled and swapped, under attack.

    python -m benchmarks interventions -- artifacts/utd_mhad amr-s0 [clips]

Reads a trained run and the shards of an artifacts folder, and prints what each intervention costs
on its test clips, with 95 % intervals. The ratio is the largest loss in points, attacked or not:
above 0 the weights do something.
"""

from pathlib import Path
from typing import Any

import torch

from benchmarks._bench import Result
from components.checkpoint import load_model
from components.config import from_older
from components.datasets import ClipDataset, select_split
from components.evaluation.bootstrap import DRAWS
from components.evaluation.interventions import intervene
from components.evaluation.piece import threat_of
from components.shards import ShardSet

EXPLICIT = True
BATCH = 64


def run(args: list[str]) -> Result:
    """`args`: an artifacts folder, a run, and how many test clips (all when left out)."""
    folder, name, *rest = args or ["artifacts/utd_mhad", "amr-s0"]
    model, about = load_model(Path(folder) / "train" / name / "best")
    settings = {key: about[key] for key in ("data", "threat", "seed")}
    config = from_older(settings, f"checkpoint {name}")
    shards = ShardSet.open(str(Path(folder) / "shards"), cache_gb=0, verify=False)
    split = select_split(shards, config.data)
    rows = split.test[: int(rest[0])] if rest else split.test
    data = ClipDataset.for_model(shards, rows, split.classes, about["model"])
    batches = [data.batch(list(rows)) for rows in torch.arange(len(data)).split(BATCH)]
    effects = intervene(model, batches, threat_of(config.threat), seed=config.seed)
    for line in lines(effects):
        print(line)
    losses = [
        one["value"] for kind in ("frozen", "shuffled", "swapped") for one in effects[kind].values()
    ]
    return Result(
        name="interventions",
        ratio=100 * max(losses),
        goal=0.0,
        sense=">=",
        sides=effects,
        unit="points",
        notes=f"largest loss of {name} on {len(data)} test clips; {DRAWS} bootstrap draws",
    )


def lines(effects: dict[str, Any]) -> list[str]:
    """The losses in points, one line an intervention, then the weights."""
    found = []
    for kind in ("frozen", "shuffled", "swapped"):
        cells = (
            f"{case} {100 * one['value']:+.1f} ({100 * one['low']:+.1f}, {100 * one['high']:+.1f})"
            for case, one in effects[kind].items()
        )
        found.append(f"{kind:<9} loses  " + "   ".join(cells))
    weights = (f"{case} {mean:.2f} ± {std:.2f}" for case, (mean, std) in effects["weight"].items())
    found.append("video's weight   " + "   ".join(weights))
    if "contrast" in effects:
        one = effects["contrast"]
        found.append(f"contrast {one['value']:+.3f} ({one['low']:+.3f}, {one['high']:+.3f})")
    return found
