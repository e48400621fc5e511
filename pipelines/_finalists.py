"""The second rung: the best trials' checkpoints under a whole suite, on validation clips alone."""

from pathlib import Path
from typing import Any, Literal

from components.checkpoint import load_model
from components.config import Config
from components.datasets import BatchLoader, ClipDataset, fixed_batches
from components.evaluation import evaluate_model
from components.training.data import open_split, validation_rows
from components.training.worker import evaluation_threat


def score_checkpoint(
    config: Config,
    shards_at: str,
    checkpoint: Path,
    suite: str,
    *,
    part: Literal["val", "test"] = "val",
    clips: int = 0,
) -> dict[str, Any]:
    """Clean and worst-case accuracy of a checkpoint under `suite`, on validation clips.

    clips: so many, drawn once by the run's seed; 0 = all. `robust` is that of the worst cell. Each
    accuracy is `{"value", "low", "high", "n"}`. The search itself never asks for the test clips;
    who measures a search afterwards may.
    """
    shards, split = open_split(config, shards_at, verify=False)
    device = "cuda" if config.ray.gpus_per_worker else "cpu"
    held_out = split.val if part == "val" else split.test
    dataset = ClipDataset(
        shards,
        validation_rows(held_out, clips, config.seed),
        classes=split.classes,
        rgb_frames=config.model.rgb_frames,
        rgb_size=config.model.rgb_size,
        skeleton_frames=config.model.skeleton_frames,
    )
    batches = fixed_batches(len(dataset), config.evaluate.batch_size)
    model, _ = load_model(checkpoint)
    found = evaluate_model(
        model.to(device),
        BatchLoader(dataset, batches, device=device),
        evaluation_threat(config),
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
