"""What runs apart from the driver: one trial's training, and the second rung's evaluation."""

import json
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from components.checkpoint import load_model, write_folder
from components.config import Config, from_dict, to_dict
from components.datasets import BatchLoader, ClipDataset, fixed_batches
from components.evaluation import evaluate_model
from components.evaluation.piece import threat_of
from components.training.shard_data import open_split, validation_rows
from pipelines._ray import run_training
from pipelines._stage import StageError
from pipelines._trial_cleanup import RegisterController

FAILED, HISTORY = "failed", "history"


def run_trial(given: dict[str, Any]) -> None:
    """Train with the settings in `given`, reporting every epoch; under its key, it goes on.

    given: `key`, `run` (its name in the storage), `config` (JSON of all settings), `shards`,
    `storage`, `out` (absolute folders or URIs) and `cleanup`. What no retry can mend is reported
    as `failed`, so that Tune does not retry.
    """
    key, cleanup = given["key"], given["cleanup"]
    callbacks: list[Any] = [TuneReportCallback(), RegisterController(cleanup, key)]
    ray.get(cleanup.release.remote(key))  # what a lost process of this trial may have left
    try:
        result = run_training(
            from_dict(json.loads(given["config"])),
            name=given["run"],
            storage=given["storage"],
            shards=given["shards"],
            out=Path(given["out"]),
            callbacks=callbacks,
            keep_run=True,
        )
    except StageError as error:
        tune.report({FAILED: str(error)})
        return
    # Epochs whose report was lost with a process are in the checkpoint's history.
    tune.report({HISTORY: result.history})


def score_checkpoint(
    config: Config, shards_at: str, checkpoint: dict[str, bytes], suite: str, *, clips: int = 0
) -> dict[str, Any]:
    """Clean and worst-case accuracy of a checkpoint under `suite`, on validation clips.

    checkpoint: its files by name, since this node may not see the driver's folders.
    clips: so many, drawn once by the run's seed; 0 = all. `robust` is that of the worst cell. Each
    accuracy is `{"value", "low", "high", "n"}`.
    """
    shards, split = open_split(config, shards_at, verify=False)
    device = "cuda" if config.ray.gpus_per_worker else "cpu"
    rows = validation_rows(split.val, clips, config.seed)
    dataset = ClipDataset.for_model(shards, rows, split.classes, to_dict(config.model))
    batches = fixed_batches(len(dataset), config.evaluate.batch_size)
    with tempfile.TemporaryDirectory(prefix="finalist-") as folder:
        model, _ = load_model(write_folder(Path(folder) / "best", checkpoint))
    found = evaluate_model(
        model.to(device),
        BatchLoader(dataset, batches, device=device),
        threat_of(config.threat),
        suite,
        seed=config.seed,
        checks=False,
    ).summary
    return {
        "suite": suite,
        "limit": clips,
        "clean": found["clean_acc"],
        "cells": found["worst"],
        "robust": min(found["worst"].values(), key=lambda accuracy: accuracy["value"]),
    }
