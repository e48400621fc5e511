"""`python -m pipelines.seeds seeds=3`: train and evaluate several seeds, one table of all."""

import hashlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from components.config import apply_overrides
from components.reporting.seeds import rows_of_seeds, seeds_markdown, seeds_table, summarise_seeds
from components.shards import ShardError
from components.shards.index import read_index
from components.shards.storage import open_store
from mlflow_tracking.files import read_json, write_json
from mlflow_tracking.names import seeds_metrics
from mlflow_tracking.outbox import newest
from mlflow_tracking.run import Tracker, start_run, under
from pipelines import evaluate, train
from pipelines._cluster import cluster
from pipelines._stage import Stage, StageError, run_stage

log = logging.getLogger("seeds")
FOLDER = "seeds"
# What the seeds share: each seed's folder holds links to these.
INPUTS = ("manifest.parquet", "index.json", "shards", "tune")


def main(stage: Stage) -> None:
    """Train and evaluate every model with every seed; interrupted, run it again and it goes on."""
    config = stage.config
    models = _main_first(config.train.models, config.register.model)
    seeds = range(config.seed, config.seed + config.seeds)
    if not (stage.artifacts / "shards").exists():
        raise StageError(
            f"{stage.artifacts / 'shards'} is missing; run `python -m pipelines.shard`"
        )
    name = f"{len(seeds)} from {config.seed}: {', '.join(models)} {config.train.method}"
    with start_run("seeds", config, name=name, artifacts=stage.artifacts) as run:
        with cluster(config.ray), under(run):
            for seed in seeds:
                _one_seed(stage, seed, models)
        finish(stage, list(seeds), models, run)


def _one_seed(stage: Stage, seed: int, models: list[str]) -> None:
    """Train all models of one seed, then evaluate them: the transfer attack needs its twin."""
    folder = home(stage, seed)
    _link_inputs(stage.artifacts, folder)
    todo = []
    for model in models:
        own = stage_of("train", stage, seed, model)
        key = outcome_key(own)
        if read_json(_mark(own, model)).get("key") == key:
            log.info("seed %d, %s: done already", seed, model)
        else:
            todo.append((model, key))
            train.main(own)
    for model, key in todo:
        own = stage_of("evaluate", stage, seed, model)
        evaluate.main(own)
        write_json(_mark(own, model), {"key": key})


def stage_of(name: str, stage: Stage, seed: int, model: str) -> Stage:
    """The train or evaluate stage of one seed and model, as its own command line would start it."""
    values = {"seed": seed, "paths.artifacts": str(home(stage, seed)), "model.fusion": model}
    words = tuple(f"{key}={value}" for key, value in values.items())
    return Stage(name, apply_overrides(stage.config, values), (*stage.overrides, *words))


def home(stage: Stage, seed: int) -> Path:
    """The folder of one seed's results, laid out as `artifacts/` is."""
    return stage.artifacts / FOLDER / str(seed)


def outcome_key(own: Stage) -> str:
    """Names all that decides a seed's figures: what training knows it by, the clips, the suite."""
    config = train.tuned(own)
    told = [
        train.fingerprint(config, ""),
        read_index(open_store(own.shards))[0]["fingerprint"],
        config.evaluate.model_dump(mode="json", exclude={"workers", "batch_size", "export"}),
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def finish(stage: Stage, seeds: list[int], models: list[str], run: Tracker) -> None:
    """Write artifacts/seeds/seeds.json, log the table on the run above all, and print it."""
    body: dict[str, Any] = summarise_seeds({seed: home(stage, seed) for seed in seeds}, models)
    body["suite"] = stage.config.evaluate.suite
    body["runs"] = {
        str(seed): {model: _runs(stage.artifacts, seed, model) for model in models}
        for seed in seeds
    }
    out = stage.artifacts / FOLDER / "seeds.json"
    write_json(out, body)
    run.headline(seeds_metrics(body))
    run.log_table(rows_of_seeds(body), "seeds")
    run.log_artifact(out)
    run.describe(seeds_markdown(body))
    print(seeds_table(body))
    print(f"written to {out}; `python -m pipelines.report` puts it on the page")


def _runs(artifacts: Path, seed: int, model: str) -> dict[str, str]:
    stages, of = ("train", "evaluate"), f"{FOLDER}/{seed}"
    boxes = {name: newest(artifacts, name, model, of) for name in stages}
    return {name: box.state()["run_id"] or box.key for name, box in boxes.items() if box}


def _main_first(models: tuple[str, ...], main: str) -> list[str]:
    return sorted(models, key=lambda model: model != main)


def _link_inputs(artifacts: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in INPUTS:
        link = folder / name
        if (artifacts / name).exists() and not link.is_symlink():
            link.symlink_to(os.path.relpath(artifacts / name, folder))


def _mark(own: Stage, model: str) -> Path:
    return own.artifacts / "done" / f"{model}.json"


if __name__ == "__main__":
    sys.exit(run_stage("seeds", main, expected=(ShardError,)))
