"""Stage train: one adversarially trained model -> artifacts/train/<fusion>/."""

import hashlib
import json
import sys
from pathlib import Path

import yaml

from components.config import Config, apply_overrides, parse_overrides, to_dict
from components.shards import ShardError
from components.training.data import open_split
from pipelines._cluster import cluster
from pipelines._progress import Relay, listening
from pipelines._ray import run_training
from pipelines._reporter import Reporter
from pipelines._stage import ROOT, Stage, StageError, absolute, run_stage

CODE = ("attacks", "datasets", "evaluation", "models", "training")


def main(stage: Stage) -> None:
    """Train one model with Ray Train; interrupted, run it again and it goes on."""
    config = tuned(stage)
    shards = stage.shards
    if "://" not in shards:
        stage.require(Path(shards), "shard")
    _, split = open_split(config, shards)
    model = config.model.fusion
    out = stage.artifacts / "train" / model
    out.mkdir(parents=True, exist_ok=True)
    storage = run_storage(config, stage.artifacts)
    name = f"{model}-{fingerprint(config, shards)}"
    with Reporter(config, stage.artifacts, out, len(split.train)) as reporter:
        with cluster(config.ray), listening(reporter.handle) as board:
            kept = out / "epochs"
            result = run_training(
                config,
                name=name,
                storage=storage,
                shards=shards,
                out=out,
                callbacks=[Relay(board, kept, config.train.keep_every)],
                board=board,
            )
        reporter.finish(result)


def tuned(stage: Stage) -> Config:
    """The settings with the search's best values, under what the command line says."""
    best = stage.artifacts / "tune" / "best.yaml"
    if not stage.config.train.use_tuned or not best.is_file():
        return stage.config
    values = yaml.safe_load(best.read_text()) or {}
    if not isinstance(values, dict):
        raise StageError(
            f"{best}: expected dotted parameters with values; run the tune stage again"
        )
    return apply_overrides(apply_overrides(stage.config, values), parse_overrides(stage.overrides))


def run_storage(config: Config, artifacts: Path) -> str:
    """Where runs keep their checkpoints until they are finished: outside of DVC's outputs, which
    `dvc repro` removes before it runs a stage again.
    """
    given = config.ray.storage
    if "://" in given:
        return given
    return str(absolute(given)) if given else str(artifacts / "runs")


def fingerprint(config: Config, shards: str) -> str:
    """Names a run by all that decides its outcome: a change of these starts a new run.

    The number of workers is not among them: an interrupted run may go on with others.
    """
    dumped = to_dict(config)
    told = {key: dumped[key] for key in ("seed", "data", "model", "threat", "train")}
    digest = hashlib.sha256(json.dumps([told, shards], sort_keys=True).encode())
    for package in CODE:
        for file in sorted((ROOT / "components" / package).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(run_stage("train", main, expected=(ShardError,)))
