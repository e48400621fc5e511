"""Robust accuracy per compute: a cheap recipe against PGD-10 training, several seeds, real clips.

    python -m benchmarks cheap_training -- --shards artifacts/shards [--seeds 3] [--epochs 20]

All recipes train the same model on the same clips in this process; passes are counted at the model.
The verdict is the worst case over the three cells under PGD-20 with two restarts, on the test
clips. Takes hours on two cores.
"""

import argparse
import statistics
from typing import Any

import torch

from benchmarks._bench import Result, spread
from benchmarks._real import judge, train_best
from components.config import Config, apply_overrides

EXPLICIT = True
POINTS = 0.01  # the cheap recipe may lose this much worst-case robust accuracy
SHARE = 0.25  # at this share of the passes
RECIPES: dict[str, dict[str, Any]] = {
    "PGD-10": {"train.attack.steps": 10},
    "N-FGSM": {"train.method": "nfgsm"},
    "2 steps, early stop": {"train.attack.steps": 2, "train.attack.early_stop": True},
}


def run(args: list[str]) -> Result:
    """Train every recipe with every seed; the ratio is passes of the best cheap one over PGD-10."""
    parser = argparse.ArgumentParser(prog="cheap_training")
    parser.add_argument("--shards", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clips", type=int, default=0, help="test clips; 0 = all")
    parser.add_argument("--fusion", default="mmtm")
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--train-subjects", default="1,3,5,7")
    parser.add_argument("--val-subjects", default="5")
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    names = [name for name in RECIPES if name in options.recipes.split(",")]
    if "PGD-10" not in names or len(names) < 2:
        raise SystemExit(f"--recipes needs PGD-10 and another of {', '.join(RECIPES)}")
    worst: dict[str, list[float]] = {name: [] for name in names}
    clean: dict[str, list[float]] = {name: [] for name in names}
    passes: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(options.seeds):
        for name in names:
            config = _config(options, seed, RECIPES[name])
            model, spent = train_best(config, options.shards)
            verdicts = judge(model, config, options.shards, limit=options.clips)
            right = float(verdicts.standing["both"].mean())
            bare = float(verdicts.clean.mean())
            worst[name].append(right)
            clean[name].append(bare)
            passes[name].append(spent)
            print(f"seed {seed} {name}: clean {bare:.1%} worst {right:.1%}, {spent:.3g} passes")
    shares = {n: statistics.mean(passes[n]) / statistics.mean(passes["PGD-10"]) for n in names[1:]}
    losses = {n: _mean_difference(worst["PGD-10"], worst[n]) for n in names[1:]}
    fine = [n for n in names[1:] if losses[n] <= POINTS]
    chosen = min(fine or names[1:], key=lambda n: shares[n] if fine else losses[n])
    # A recipe that loses too much does not count, however cheap it is.
    return Result(
        name="cheap_training",
        ratio=shares[chosen] if fine else float("inf"),
        goal=SHARE,
        sense="<=",
        sides={
            name: {
                "worst": spread(worst[name]),
                "clean": spread(clean[name]),
                "passes": statistics.mean(passes[name]),
            }
            for name in names
        },
        unit="share of PGD-10's passes",
        notes=f"{chosen}: passes over PGD-10's, at {losses[chosen]:+.2%} lost worst-case accuracy "
        f"({options.seeds} seeds, {options.epochs} epochs, {options.fusion})",
        details={"share of passes": shares, "worst-case accuracy lost, paired": losses},
    )


def _config(options: argparse.Namespace, seed: int, recipe: dict[str, Any]) -> Config:
    subjects = [[int(s) for s in text.split(",")] for text in
                (options.train_subjects, options.val_subjects)]  # fmt: skip
    base = {
        "seed": seed,
        "data.protocol": "custom",
        "data.train_subjects": subjects[0],
        "data.val_subjects": subjects[1],
        "model.fusion": options.fusion,
        "train.epochs": options.epochs,
    }
    return apply_overrides(Config(), {**base, **recipe})


def _mean_difference(ours: list[float], theirs: list[float]) -> float:
    return statistics.mean(a - b for a, b in zip(ours, theirs, strict=True))
