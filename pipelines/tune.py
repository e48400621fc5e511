"""Stage tune: a search by validation robust accuracy -> artifacts/tune/best.yaml, trials, plots."""

import logging
import shutil
import sys
from pathlib import Path

from components.search import plots, results
from components.search.identity import identity
from components.search.importances import importances
from components.search.ledger import Ledger
from components.search.proposals import Proposals
from components.search.space import check_space
from components.shards.storage import open_store
from components.training.data import open_split
from mlflow_tracking.files import try_lock
from mlflow_tracking.run import Tracker, start_run
from pipelines._cluster import cluster
from pipelines._ray import run_storage
from pipelines._stage import Stage, StageError, run_stage
from pipelines._trial_runs import TrialRuns
from pipelines._tuning import rescore, run_name, run_search

log = logging.getLogger("tune")


def main(stage: Stage) -> None:
    """Search attack and fusion parameters by validation robust accuracy."""
    config, out = stage.config, stage.artifacts / "tune"
    if not config.tune.enabled:
        results.write_disabled(out, config)
        plots.draw(out, results.table(config, []), {})
        log.info("tune.enabled is false: nothing searched, best.yaml is empty")
        return
    check_space(config)
    if "://" not in stage.shards:
        stage.require(Path(stage.shards), "shard")
    shards, _ = open_split(config, stage.shards)
    folder = out / "searches" / identity(config, shards.fingerprint)
    lock = try_lock(folder / "lock")
    if lock is None:
        raise StageError(f"another process runs this very search in {folder}; wait for it to end")
    ledger = Ledger(folder)
    if ledger.trials:
        log.info("going on with %d trials of %s", len(ledger.trials), folder)
    storage = run_storage(config, stage.artifacts)
    ledger.begin_session()
    with start_run("tune", config, name="search", artifacts=stage.artifacts) as run:
        with cluster(config.ray):
            runs = TrialRuns(config, stage.artifacts, run)
            ended = run_search(
                config,
                Proposals(config, ledger),
                runs,
                folder=folder,
                shards=stage.shards,
                storage=storage,
            )
            rescore(config, ledger, folder, stage.shards)
        finish(stage, out, ledger, ended, run)
    shutil.rmtree(folder / "ray", ignore_errors=True)
    _sweep(ledger, storage)
    lock.close()


def finish(stage: Stage, out: Path, ledger: Ledger, ended: str, run: Tracker) -> None:
    """Write all results, to disk and to the search's MLflow run, and say what was found."""
    config = stage.config
    body = results.write(out, config, ledger, ended)
    shares = importances(config, ledger.ordered(), config.seed)
    pictures = plots.draw(out, results.table(config, ledger.ordered()), shares)
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


def _sweep(ledger: Ledger, storage: str) -> None:
    """Remove the checkpoints of trials that will not go on; the finished ones' best are copied."""
    base, mark, query = storage.partition("?")
    for trial in ledger.finished():
        home = f"{base.rstrip('/')}/{run_name(ledger, trial.key)}{mark}{query}"
        store = open_store(home, create=True)
        store.filesystem.delete_dir(store.root)


if __name__ == "__main__":
    sys.exit(run_stage("tune", main))
