"""Every fusion under one recipe and budget on real clips: is AMR above its rivals, and by how much?

    make bench NAME=fusion_real BENCH_ARGS="-- --shards artifacts/shards"

One model for each (row, seed); each is stored as it ends, and the same command goes on where it
stopped. `--on val` compares on the held-out training subjects (for choosing; the ablation of AMR is
`--rows amr,amr-...`), the default on the test subjects (for the final table, once).
The verdict: PGD-20 with random start and restarts, and with `--targeted` a second one, for which
targeted APGD follows on what stands (docs/amr-log.md, section 7); a row's worst case is the cell
"both", which starts from the clips that stand in the two others. Takes hours on two cores.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._bench import ROOT, Result
from benchmarks._fusion_rows import RECIPE, ROWS
from benchmarks._real import Run, lead, points, stored_run
from components.attacks import CELLS
from components.config import Config, apply_overrides, load_config, parse_overrides

EXPLICIT = True


def run(args: list[str]) -> Result:
    """Train and judge what is missing, then print the table; the ratio is AMR's lead in points."""
    options = _parse(args)
    torch.set_num_threads(options.threads)
    table: dict[str, list[Run]] = {row: [] for row in options.rows.split(",")}
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
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--on", choices=("test", "val"), default="test")
    parser.add_argument("--train-subjects", default="1,3,5,7")
    parser.add_argument("--val-subjects", default="5")
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--targeted", action="store_true", help="targeted APGD after PGD-20")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="key=value of the recipe")
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
    wanted = parse_overrides(options.set)
    return apply_overrides(load_config(ROOT / "params.yaml"), {**RECIPE, **base, **wanted, **row})


def _one(row: str, config: Config, options: argparse.Namespace) -> Run:
    body, new = stored_run(
        row,
        config,
        options.shards,
        Path(options.out),
        on=options.on,
        restarts=options.restarts,
        keep="last",
        targeted=options.targeted,
    )
    if new:
        print(_line(row, [body]) + f"   seed {config.seed}, {body['seconds']:.0f} s", flush=True)
    return body


def _result(table: dict[str, list[Run]], options: argparse.Namespace) -> Result:
    cells = CELLS
    leads = _tell(table, cells)
    if options.targeted:
        print("\nwith targeted APGD on what stands")
        cells = tuple(f"targeted_{cell}" for cell in CELLS)
        leads = _tell(table, cells)
    first = next(iter(table))
    joint = [found["both"] for found in leads.values()]
    least = min(joint, key=lambda found: found["low"], default=None)
    return Result(
        name=f"fusion_real_{options.on}",
        ratio=least["low"] if least else 0.0,
        goal=0.0,
        sense=">=",
        sides={row: _figures(runs, cells) for row, runs in table.items()},
        unit="points, lower end of the smallest lead's 95 % interval",
        notes=f"{first} against the rest, {options.seeds} seeds, {options.epochs} epochs, "
        f"{len(table[first][0]['clip_id'])} clips ({options.on})"
        + (", after targeted APGD" if options.targeted else ""),
        details={"leads": leads},
    )


def _tell(table: dict[str, list[Run]], cells: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Print the rows, the leads of the first one and the gaps; the leads by row and cell."""
    print(f"\n{'fusion':<22} {'clean':>13} {'rgb':>13} {'skeleton':>13} {'both':>13}")
    for row, runs in table.items():
        print(_line(row, runs, cells))
    first, *others = table
    names = {"clean": "clean", **dict(zip(CELLS, cells, strict=True))}
    leads = {
        row: {cell: lead(table[first], table[row], key) for cell, key in names.items()}
        for row in others
    }
    for row, found in leads.items():
        print(f"{first} - {row}: " + ", ".join(f"{c} {points(one)}" for c, one in found.items()))
    for row, runs in table.items():
        _, rgb, skeleton, _ = _figures(runs, cells).values()
        print(f"{row}: {100 * (rgb - skeleton):+.1f} points from skeleton to rgb")
    return leads


def _figures(runs: list[Run], cells: tuple[str, ...]) -> dict[str, float]:
    return {
        cell: statistics.mean(float(np.mean(r[cell])) for r in runs) for cell in ("clean", *cells)
    }


def _line(row: str, runs: list[Run], cells: tuple[str, ...] = CELLS) -> str:
    told = []
    for cell in ("clean", *cells):
        values = [100 * float(np.mean(r[cell])) for r in runs]
        spread = f" ±{statistics.stdev(values):4.1f}" if len(values) > 1 else ""
        told.append(f"{statistics.mean(values):5.1f}{spread}".rjust(13))
    return f"{row:<22} " + " ".join(told)
