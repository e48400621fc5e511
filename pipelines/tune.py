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
from components.shards import ShardError
from components.training.data import open_split
from mlflow_tracking.run import Tracker, start_run
from pipelines._cluster import cluster
from pipelines._stage import Stage, run_stage
from pipelines._trial_runs import TrialRuns
from pipelines._tuning import rescore, run_search

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
    ledger = Ledger(folder)
    if ledger.trials:
        log.info("going on with %d trials of %s", len(ledger.trials), folder)
    storage = f"{config.ray.storage or stage.artifacts / 'runs'}/tune-{folder.name}"
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


if __name__ == "__main__":
    sys.exit(run_stage("tune", main, expected=(ShardError,)))
