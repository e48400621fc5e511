"""Stage train: one adversarially trained model -> artifacts/<recipe>/train/<variant>-s<seed>/."""

import hashlib
import json
import sys
from pathlib import Path

from components.config import Config, to_dict
from components.fingerprint import code_fingerprint
from components.training.shard_data import open_split
from pipelines._cluster import cluster
from pipelines._progress import ProgressCallback, progress_channel
from pipelines._ray import run_storage, run_training
from pipelines._reporter import Reporter
from pipelines._shared_folders import folders
from pipelines._stage import Stage, run_stage


def main(stage: Stage) -> None:
    """Train one variant with one seed; interrupted, run it again and it goes on."""
    config, shards = stage.tuned().config, stage.shards
    if "://" not in shards:
        stage.require(Path(shards), "shard")
    opened, split = open_split(config, shards)
    out = stage.artifacts / "train" / config.run
    out.mkdir(parents=True, exist_ok=True)
    storage = run_storage(config, stage.artifacts)
    with Reporter(config, stage.artifacts, out, len(split.train), opened) as reporter:
        with (
            cluster(config.ray, read=folders(shards), written=folders(storage)),
            progress_channel(reporter.handle) as channel,
        ):
            result = run_training(
                config,
                name=f"{config.run}-{fingerprint(config, shards)}",
                storage=storage,
                shards=shards,
                out=out,
                callbacks=[ProgressCallback(channel)],
                progress=channel,
            )
        reporter.finish(result)


def fingerprint(config: Config, shards: str) -> str:
    """Names a run by all that decides its outcome: a change of these starts a new run.

    The number of workers is not among them: an interrupted run may go on with others.
    """
    values = to_dict(config)
    deciding = {key: values[key] for key in ("seed", "data", "model", "threat", "train")}
    body = json.dumps([deciding, shards, code_fingerprint()], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(run_stage("train", main))
