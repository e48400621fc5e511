"""Every fusion under one recipe and budget on real clips: is AMR above its rivals, and by how much?

    make bench NAME=fusion_real BENCH_ARGS="-- --shards artifacts/shards"

One model for each (row, seed); each is stored as it ends, and the same command goes on where it
stopped. `--on val` compares on the held-out training subjects (for choosing; the ablation of AMR is
`--rows amr,amr-...`), the default on the test subjects (for the final table, once).
The verdict: PGD-20 with random start and restarts; a row's worst case is the cell "both", which
starts from the clips that stand in the two others. Takes hours on two cores.
"""

import argparse
import hashlib
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._bench import ROOT, Result
from benchmarks._fusion_rows import ROWS
from benchmarks._real import judge, train_best
from components.attacks import CELLS
from components.config import Config, apply_overrides, load_config

EXPLICIT = True
DRAWS = 4000


def run(args: list[str]) -> Result:
    """Train and judge what is missing, then print the table; the ratio is AMR's lead in points."""
    options = _parse(args)
    torch.set_num_threads(options.threads)
    table: dict[str, list[dict[str, Any]]] = {row: [] for row in options.rows.split(",")}
    unknown = set(table) - set(ROWS)
    if unknown:
        raise SystemExit(f"no row {sorted(unknown)[0]!r}; there are: {', '.join(ROWS)}")
    for seed in range(options.seeds):
        for row in table:
            config = _config(options, seed, ROWS[row])
            table[row].append(_one(row, config, options))
    return _result(table, options)


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fusion_real")
    parser.add_argument("--shards", required=True)
    parser.add_argument("--rows", default="amr,late,concat,mmtm,minsim,exfmem,minsim_exfmem,fim")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--on", choices=("test", "val"), default="test")
    parser.add_argument("--train-subjects", default="1,3,5,7")
    parser.add_argument("--val-subjects", default="5")
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="key=value for every row")
    parser.add_argument("--out", default=str(ROOT / "artifacts" / "bench" / "fusion_real"))
    return parser.parse_args(args)


def _config(options: argparse.Namespace, seed: int, row: dict[str, Any]) -> Config:
    numbers = [
        [int(s) for s in text.split(",")] for text in (options.train_subjects, options.val_subjects)
    ]
    base = {
        "seed": seed,
        "data.protocol": "custom",
        "data.train_subjects": numbers[0],
        "data.val_subjects": numbers[1],
        "train.epochs": options.epochs,
    }
    return apply_overrides(load_config(ROOT / "params.yaml", options.set), {**base, **row})


def _one(row: str, config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """One trained and judged model, from its file when it is there already."""
    told = config.model_dump(mode="json")
    told = {k: told[k] for k in ("seed", "data", "model", "threat", "train")}
    key = hashlib.sha256(
        json.dumps([told, options.on, options.restarts], sort_keys=True).encode()
    ).hexdigest()[:12]
    path = Path(options.out) / f"{row}-seed{config.seed}-{options.on}-{key}.json"
    if path.is_file():
        return json.loads(path.read_text())
    started = time.monotonic()
    model, passes = train_best(config, options.shards)
    verdicts = judge(model, config, options.shards, split=options.on, n_restarts=options.restarts)
    body = {
        "row": row,
        "seed": config.seed,
        "seconds": time.monotonic() - started,
        "passes": passes,
        "clip_id": list(verdicts.clip_id),
        "clean": verdicts.clean.astype(int).tolist(),
        **{cell: verdicts.standing[cell].astype(int).tolist() for cell in CELLS},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(json.dumps(body))
    path.with_suffix(".tmp").replace(path)
    print(_line(row, [body]) + f"   seed {config.seed}, {body['seconds']:.0f} s", flush=True)
    return body


def _result(table: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> Result:
    print(f"\n{'fusion':<22} {'clean':>13} {'rgb':>13} {'skeleton':>13} {'both':>13}")
    for row, runs in table.items():
        print(_line(row, runs))
    first, *others = table
    leads = {row: lead(table[first], table[row]) for row in others}
    for row, found in leads.items():
        print(f"{first} - {row}: {_points(found)} points under joint attack")
    least = min(leads.values(), key=lambda found: found["low"], default=None)
    return Result(
        name=f"fusion_real_{options.on}",
        ratio=least["low"] if least else 0.0,
        goal=0.0,
        sense=">=",
        sides={row: _figures(runs) for row, runs in table.items()},
        unit="points, lower end of the smallest lead's 95 % interval",
        notes=f"{first} against the rest, {options.seeds} seeds, {options.epochs} epochs, "
        f"{len(table[first][0]['clip_id'])} clips ({options.on})",
        details={"leads": leads},
    )


def lead(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], cell: str = "both"
) -> dict[str, float]:
    """Mean difference in accuracy, bootstrapped over seeds and clips, both paired."""
    pairs = list(zip(ours, theirs, strict=True))
    if any(a["clip_id"] != b["clip_id"] for a, b in pairs):
        raise ValueError("the two rows were judged on different clips")
    gaps = np.array([np.subtract(a[cell], b[cell]) for a, b in pairs], dtype=float)
    generator = np.random.default_rng(0)
    seeds = generator.integers(0, gaps.shape[0], (DRAWS, gaps.shape[0]))
    clips = generator.integers(0, gaps.shape[1], (DRAWS, gaps.shape[1]))
    draws = [gaps[np.ix_(s, c)].mean() for s, c in zip(seeds, clips, strict=True)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"value": float(gaps.mean()), "low": float(low), "high": float(high)}


def _figures(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {cell: statistics.mean(np.mean(r[cell]) for r in runs) for cell in ("clean", *CELLS)}


def _line(row: str, runs: list[dict[str, Any]]) -> str:
    cells = []
    for cell in ("clean", *CELLS):
        values = [100 * float(np.mean(r[cell])) for r in runs]
        spread = f" ±{statistics.stdev(values):4.1f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):5.1f}{spread}".rjust(13))
    return f"{row:<22} " + " ".join(cells)


def _points(found: dict[str, float]) -> str:
    value, low, high = (100 * found[k] for k in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
