"""What the long benchmarks on real clips share: train one model in this process, judge each clip.

No Ray here: many small models are trained one after the other, and a benchmark of accuracy needs
neither workers nor storage. The loop, the data path and the attacks are the project's own.
"""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from components.attacks import CELLS
from components.config import Config, to_dict
from components.datasets import BatchLoader, ClipDataset, fixed_batches
from components.evaluation.bootstrap import over_seeds
from components.evaluation.cascade import run_cascade
from components.evaluation.cost import count_passes
from components.evaluation.piece import threat_of
from components.evaluation.suite import MARGIN, Entry
from components.models import build_model
from components.training.loop import train_epochs
from components.training.shard_data import open_data, open_split
from components.training.state import new_state

Run = dict[str, Any]
# PGD-20 is the usual figure; what falls to targeted APGD besides shows what it misses.
TARGETED = Entry("apgd_t", "apgd_t", {"steps": 40, "n_targets": 4})


@dataclass(frozen=True)
class Verdicts:
    """Per clip, in the split's order: right on clean input, and still right in each cell.

    targeted: still right when `TARGETED` came after; empty if it did not
    """

    clip_id: tuple[str, ...]
    clean: np.ndarray
    standing: dict[str, np.ndarray]
    targeted: dict[str, np.ndarray]


def train_one(config: Config, shards: str, keep: str = "best") -> tuple[nn.Module, int]:
    """A trained model, and the forward passes of clips that training spent.

    keep: the "best" checkpoint by validation, or the "last" (averaged) weights of an annealed run,
        where choosing among its epochs by a few validation clips would add noise
    """
    data, classes = open_data(config, shards)
    torch.manual_seed(config.seed)
    dumped = to_dict(config.model)
    model = build_model({**dumped, "num_classes": len(classes)})
    train = config.train
    state = new_state(model, lr=train.lr, ema=train.ema)
    best: dict[str, torch.Tensor] = {}
    spent = begun = now = 0
    with count_passes(model) as passes:

        def look(_: object) -> None:
            nonlocal now
            now = passes.forward

        rows = train_epochs(
            state, data, train, threat_of(config.threat), seed=config.seed, on_step=look
        )
        for row in rows:
            spent += now - begun  # without what validation spent
            begun = passes.forward
            if keep == "last" or state.position.best_epoch == row["epoch"]:
                best = {k: v.clone() for k, v in state.deployed.state_dict().items()}
    state.deployed.load_state_dict(best)
    return state.deployed, spent


def judge(
    model: nn.Module,
    config: Config,
    shards: str,
    *,
    split: str = "test",
    limit: int = 0,
    steps: int = 20,
    n_restarts: int = 2,
    targeted: bool = False,
) -> Verdicts:
    """Every clip of the split under PGD with random starts and `margin_pgd`, in the three cells.

    targeted: what stands meets `TARGETED` too
    """
    opened, chosen = open_split(config, shards, verify=False)
    rows = getattr(chosen, split)
    rows = rows[:limit] if limit else rows
    dataset = ClipDataset.for_model(opened, rows, chosen.classes, to_dict(config.model))
    pgd = Entry("pgd", "pgd", {"steps": steps, "n_restarts": n_restarts})
    # The joint cell starts from what stands in the others: a suite of its own for each verdict.
    suites = [[pgd, MARGIN], [pgd, MARGIN, TARGETED]] if targeted else [[pgd, MARGIN]]
    threat = threat_of(config.threat)
    ids: list[str] = []
    clean: list[torch.Tensor] = []
    standing: list[dict[str, list[torch.Tensor]]] = [{c: [] for c in CELLS} for _ in suites]
    for batch in BatchLoader(dataset, fixed_batches(len(dataset), 64)):
        ids += batch.clip_id
        for suite, cells in zip(suites, standing, strict=True):
            result = run_cascade(model, batch, suite, threat, seed=config.seed, clips_per_pass=0)
            for cell, parts in cells.items():
                parts.append(result.standing[cell])
        clean.append(result.clean.scores.correct)
    first, *more = [{c: torch.cat(p).numpy() for c, p in cells.items()} for cells in standing]
    return Verdicts(tuple(ids), torch.cat(clean).numpy(), first, *(more or [{}]))


def stored_run(
    row: str,
    config: Config,
    shards: str,
    out: Path,
    *,
    on: str = "test",
    restarts: int = 2,
    keep: str = "best",
    targeted: bool = False,
) -> tuple[Run, bool]:
    """One trained and judged model, and whether it was made now rather than read from `out`.

    Per clip: `clip_id`, `clean` and one list a cell of 0 and 1; with `targeted` besides one a cell
    by the name `targeted_<cell>`. An interrupted benchmark finds what it had finished; whatever
    decides the outcome of a run is in its file's name.
    """
    settings = to_dict(config)
    settings = {k: settings[k] for k in ("seed", "data", "model", "threat", "train")}
    decides = [settings, on, restarts, *([keep] if keep != "best" else [])]
    decides += ["and targeted"] if targeted else []
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
    path = out / f"{row}-seed{config.seed}-{on}-{key}.json"
    if path.is_file():
        return json.loads(path.read_text()), False
    started = time.monotonic()
    model, passes = train_one(config, shards, keep)
    verdicts = judge(model, config, shards, split=on, n_restarts=restarts, targeted=targeted)
    body = {
        "row": row,
        "seed": config.seed,
        "seconds": time.monotonic() - started,
        "passes": passes,
        "clip_id": list(verdicts.clip_id),
        "clean": verdicts.clean.astype(int).tolist(),
        **{cell: found.astype(int).tolist() for cell, found in verdicts.standing.items()},
        **{f"targeted_{c}": found.astype(int).tolist() for c, found in verdicts.targeted.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(json.dumps(body))
    path.with_suffix(".tmp").replace(path)
    return body, True


def lead(ours: list[Run], theirs: list[Run], cell: str = "both") -> dict[str, Any]:
    """Mean difference in accuracy, bootstrapped over seeds and clips, both paired."""
    pairs = list(zip(ours, theirs, strict=True))
    if any(a["clip_id"] != b["clip_id"] for a, b in pairs):
        raise ValueError("the two rows were judged on different clips")
    return over_seeds([np.subtract(a[cell], b[cell]) for a, b in pairs])


def points(found: dict[str, Any]) -> str:
    """A difference as percentage points with its interval."""
    value, low, high = (100 * found[k] for k in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
