"""Stage tune: a search by validation robust accuracy -> artifacts/tune/best.yaml, trials, plots."""

import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from components.address import join
from components.config import load_config
from components.files import try_lock
from components.search import output, plots
from components.search.space import check_space
from components.search.study import Search, identity
from components.shards.storage import open_store
from components.training.shard_data import open_split
from mlflow_tracking.run import Run, start_run
from pipelines._cluster import cluster
from pipelines._ray import run_storage
from pipelines._search import run_name, run_search, score_finalists
from pipelines._shared_folders import folders
from pipelines._stage import Stage, StageError, run_stage
from pipelines._trial_runs import TrialRuns

log = logging.getLogger("tune")


def main(stage: Stage) -> None:
    """Search attack and fusion parameters by validation robust accuracy."""
    stage = first_variant(stage)
    config, out = stage.config, stage.artifacts / "tune"
    if not config.tune.trials:
        output.write_disabled(out, config)
        plots.draw(out, config, [])
        log.info("tune.trials is 0: nothing searched, best.yaml is empty")
        return
    check_space(config)
    if "://" not in stage.shards:
        stage.require(Path(stage.shards), "shard")
    shards, _ = open_split(config, stage.shards)
    folder = out / "searches" / identity(config, shards.fingerprint)
    lock = try_lock(folder / "lock")
    if lock is None:
        raise StageError(f"another process runs this very search in {folder}; wait for it to end")
    search = Search(config, folder)
    known = search.records()
    if known:
        log.info("going on with %d trials of %s", len(known), folder)
    shutil.rmtree(out / "trials", ignore_errors=True)  # an earlier search's, with other settings
    for trial in known:
        output.write_trial(out / "trials", trial)
    storage = run_storage(config, stage.artifacts)
    with start_run("tune", config, name="search", artifacts=stage.artifacts) as run:
        with cluster(config.ray, read=folders(stage.shards), written=folders(storage)):
            runs = TrialRuns(config, stage.artifacts, run)
            ended = run_search(search, runs, out=out, shards=stage.shards, storage=storage)
            score_finalists(search, stage.shards)
        finish(stage, search, ended, run)
    shutil.rmtree(folder / "ray", ignore_errors=True)
    remove_runs(search, storage)
    lock.release()


def first_variant(stage: Stage) -> Stage:
    """The stage with the settings of the first variant compared, unless the command names one.

    What is found holds for all variants; settings that one does not have leave it as it is.
    """
    words = stage.overrides
    if any(word.partition("=")[0].strip() == "variant" for word in words):
        return stage
    config = load_config(stage.params, (*words, f"variant={stage.config.compare[0]}"))
    return replace(stage, config=config)


def finish(stage: Stage, search: Search, ended: str, run: Run) -> None:
    """Write all results, to disk and to the search's MLflow run, and say what was found."""
    config, out = stage.config, stage.artifacts / "tune"
    body = output.write(out, config, search, ended)
    pictures = plots.draw(out, config, search.records())
    for file in (*pictures, *(out / n for n in ("best.yaml", "trials.csv", "tune.json"))):
        run.log_artifact(file)
    if body["winner"] is None:
        log.warning("no trial finished an epoch (%s); best.yaml is empty", ended)
        return
    run.headline(
        {
            "val/robust_acc/worst": body["val_robust_acc"],
            "val/clean_acc": body["val_clean_acc"],
            "tune/passes": body["passes"],
            "tune/saved": body["saved"],
        },
        prefix="tune/",
    )
    log.info(
        "%s in %.0f s; ASHA saved %.0f %% of the passes. Winner: %s, robust %.3f, clean %.3f: %s",
        ended,
        body["seconds"],
        100 * body["saved"],
        body["winner"],
        body["val_robust_acc"],
        body["val_clean_acc"],
        body["best"] or "the defaults",
    )


def remove_runs(search: Search, storage: str) -> None:
    """Remove the checkpoints of trials that are over; the best one of each is copied already."""
    for trial in search.records():
        if trial.over:
            store = open_store(join(storage, run_name(search, trial.key)), create=True)
            store.filesystem.delete_dir(store.root)


if __name__ == "__main__":
    sys.exit(run_stage("tune", main))
