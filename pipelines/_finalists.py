"""The second rung: the best trials' checkpoints under a whole suite, on validation clips alone."""

import logging
from pathlib import Path
from typing import Any

import ray

from components.checkpoint import load_model
from components.config import Config
from components.datasets import BatchLoader, ClipDataset, fixed_batches
from components.evaluation import evaluate_model
from components.search.ledger import Ledger
from components.search.results import finalists
from components.search.space import trial_config
from components.training.data import open_split
from components.training.worker import evaluation_threat

log = logging.getLogger("tune")


def score_validation(
    config: Config, shards_at: str, checkpoint: Path, suite: str
) -> dict[str, Any]:
    """Clean and worst-case accuracy of a checkpoint on all validation clips under `suite`.

    `robust` is that of the worst cell. Each accuracy is `{"value", "low", "high", "n"}`.
    """
    shards, split = open_split(config, shards_at, verify=False)
    device = "cuda" if config.ray.gpus_per_worker else "cpu"
    clips = ClipDataset(
        shards,
        split.val,
        classes=split.classes,
        rgb_frames=config.model.rgb_frames,
        rgb_size=config.model.rgb_size,
        skeleton_frames=config.model.skeleton_frames,
    )
    batches = fixed_batches(len(clips), config.evaluate.batch_size)
    model, _ = load_model(checkpoint)
    found = evaluate_model(
        model.to(device),
        BatchLoader(clips, batches, device=device),
        evaluation_threat(config),
        suite,
        seed=config.seed,
        checks=False,
    ).summary
    return {
        "suite": suite,
        "clean": found["clean_acc"],
        "cells": found["worst"],
        "robust": min(found["worst"].values(), key=lambda accuracy: accuracy["value"]),
    }


def rescore(config: Config, ledger: Ledger, folder: Path, shards: str) -> None:
    """Score the finalists that have no score under this suite yet, side by side on the cluster."""
    suite, section = config.tune.finalist_suite, config.ray
    waiting: dict[Any, str] = {}
    task = ray.remote(score_validation).options(
        num_cpus=section.cpus_per_worker, num_gpus=section.gpus_per_worker, max_retries=3
    )
    for trial in finalists(ledger.ordered(), config.tune.finalists):
        best = folder / "trials" / trial.key / "best"
        if (trial.finalist or {}).get("suite") == suite or not best.is_dir():
            continue
        settings = trial_config(config, trial.values)
        waiting[task.remote(settings, shards, best, suite)] = trial.key
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        key = waiting.pop(done)
        scores = ray.get(done)
        ledger.score_finalist(key, scores)
        log.info(
            "finalist %s under suite %s: robust %.3f [%.3f, %.3f], clean %.3f",
            key,
            suite,
            scores["robust"]["value"],
            scores["robust"]["low"],
            scores["robust"]["high"],
            scores["clean"]["value"],
        )
