"""Search on real clips: TPE with ASHA against as many random trials, and against the defaults.

    make bench NAME="search_real -- --data FOLDER --work FOLDER"

FOLDER holds clips in NTU layout (861 UTD-MHAD clips were used here). Both searches start with the
defaults, see the same clips, have the same space and seed, and are compared after equal passes
through the network. The random search runs every trial to its end. Interrupted, it goes on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks._bench import ROOT, Result
from components.checkpoint import read_config
from components.config import Config, load_config
from components.search.ledger import Ledger, Trial
from components.search.objective import score_of
from components.search.progress import best_so_far, best_within
from components.search.results import winner
from components.search.space import trial_config
from pipelines._finalists import score_checkpoint

EXPLICIT = True

SIDES = {
    "tpe_asha": ["tune.search=tpe", "tune.asha=true"],
    "random_full": ["tune.search=random", "tune.asha=false"],
}
SPACE = {
    "train.attack.rgb_eps": "{kind: uniform, low: 2/255, high: 12/255}",
    "train.attack.skeleton_eps": "{kind: ratio, of: train.attack.rgb_eps, low: 0.5, high: 4.0, "
    "log: true}",
    "train.attack.steps": "{kind: int, low: 2, high: 4}",
    "train.attack.modalities": "{kind: choice, values: [both, mix]}",
    "model.fusion": "{kind: choice, values: [amr, mmtm, concat]}",
    "model.amr.temperature": "{kind: uniform, low: 0.5, high: 4.0, log: true}",
    "train.aux_weight": "{kind: uniform, low: 0.0, high: 1.0}",
    "train.lr": "{kind: uniform, low: 5.0e-4, high: 8.0e-3, log: true}",
}


def run(args: list[str]) -> Result:
    """Both searches, and the test accuracy of what they and the defaults end with."""
    parser = argparse.ArgumentParser(prog="search_real")
    parser.add_argument("--data", required=True, help="folder with clips in NTU layout")
    parser.add_argument("--work", required=True, help="folder for shards and searches; kept")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--suite", default="quick", help="for finalists and test clips")
    parser.add_argument("overrides", nargs="*", help="further settings, key=value")
    options = parser.parse_args(args)
    work = Path(options.work).absolute()
    common = [
        f"paths.data={Path(options.data).absolute()}",
        "data.protocol=custom",
        "data.train_subjects=[1,3,5,7]",
        "data.val_subjects=[5]",
        f"shard.uri={work / 'shards'}",
        f"tune.trials={options.trials}",
        f"tune.epochs={options.epochs}",
        f"tune.finalist_suite={options.suite}",
        "tune.finalist_clips=0",
        "tune.finalists=3",
        "tune.proxy_steps=5",
        "tune.val_clips=0",
        *options.overrides,
    ]
    if not (work / "shards" / "shards.json").is_file():
        for stage in ("index", "shard"):
            _stage(stage, [*common, f"paths.artifacts={work}"])
    sides: dict[str, Any] = {}
    ledgers: dict[str, Ledger] = {}
    for name, choice in SIDES.items():
        overrides = [*common, *choice, *_space(), f"paths.artifacts={work / name}"]
        _stage("tune", overrides)
        body = json.loads((work / name / "tune" / "tune.json").read_text())
        folder = work / name / "tune" / "searches" / body["identity"]
        ledgers[name] = Ledger(folder)
        config = load_config(ROOT / "params.yaml", overrides)
        sides[name] = _figures(config, ledgers[name], folder, options.suite, body)
    equal = min(best_so_far(ledger)[-1][0] for ledger in ledgers.values())
    for name, ledger in ledgers.items():
        sides[name]["best_val_robust_at_equal_passes"] = best_within(best_so_far(ledger), equal)
    reached = {name: sides[name]["best_val_robust_at_equal_passes"] for name in SIDES}
    return Result(
        name="search_real",
        ratio=reached["tpe_asha"] / max(reached["random_full"], 1e-9),
        goal=1.0,
        sense=">=",
        sides=sides,
        unit="best validation robust accuracy, ratio at equal passes",
        notes=f"{options.trials} trials of {options.epochs} epochs, {Path(options.data).name}; "
        f"compared after {equal / 1e6:.2f} million passes",
        details={"asha_saved": sides["tpe_asha"]["saved"], "curves": _curves(ledgers)},
    )


def _space() -> list[str]:
    # Whatever params.yaml searches is left out, so that the figures do not move with it.
    text = ", ".join(f"{name}: {distribution}" for name, distribution in SPACE.items())
    return [f"tune.space={{{text}}}"]


def _stage(name: str, overrides: list[str]) -> None:
    subprocess.run([sys.executable, "-m", f"pipelines.{name}", *overrides], cwd=ROOT, check=True)


def _figures(
    config: Config, ledger: Ledger, folder: Path, suite: str, body: dict[str, Any]
) -> dict[str, Any]:
    trials = ledger.ordered()
    best = winner(config, trials)
    default = next(trial for trial in trials if trial.default)
    if best is None:
        raise ValueError(f"no trial of {folder} finished an epoch")
    return {
        "trials": body["by_status"],
        "passes": body["passes"],
        "saved": body["saved"],
        "seconds": body["seconds"],
        "winner": _side(config, best, folder, suite),
        "defaults": _side(config, default, folder, suite),
        "best": best.values,
    }


def _side(config: Config, trial: Trial, folder: Path, suite: str) -> dict[str, Any]:
    """Validation by proxy and by suite; test by suite, measured here once for the same weights."""
    score = score_of(trial)
    checkpoint = folder / "trials" / trial.key / "best"
    weights = read_config(checkpoint)["weights_sha256"]
    # Both searches train the defaults, to the same weights.
    kept = Path(config.shard.uri).parent / f"test_{suite}_{weights[:12]}.json"
    if not kept.is_file():
        torch.manual_seed(config.seed)
        settings = trial_config(config, trial.values)
        found = score_checkpoint(settings, config.shard.uri, checkpoint, suite, part="test")
        kept.write_text(json.dumps(found))
    test = json.loads(kept.read_text())
    return {
        "val_robust": score.robust if score else None,
        "val_robust_suite": (trial.finalist or {}).get("robust"),
        "test_robust": test["robust"],
        "test_clean": test["clean"],
    }


def _curves(ledgers: dict[str, Ledger]) -> dict[str, list[tuple[float, float]]]:
    return {name: best_so_far(ledger) for name, ledger in ledgers.items()}
