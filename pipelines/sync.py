"""`python -m pipelines.sync`: publish in MLflow what earlier stages could not, once it answers."""

import sys

from mlflow_tracking import store
from mlflow_tracking.publish import pending, publish
from mlflow_tracking.record import FOLDER, Record, records
from pipelines import register
from pipelines._stage import Stage, StageError, run_stage


def main(stage: Stage) -> None:
    """Publish what earlier stages could not; what MLflow has already is not sent twice."""
    known = records(stage.artifacts)
    waiting = [record for record in known if pending(record)]
    if waiting:
        _publish(stage, waiting)
    else:
        print(f"all {len(known)} runs under {stage.artifacts / FOLDER} are in MLflow")
    if register.postponed(stage.artifacts):
        print("registering what could not be registered before")
        register.main(stage)


def _publish(stage: Stage, waiting: list[Record]) -> None:
    uri = store.tracking_uri(stage.config.tracking)
    failed = []
    for record in waiting:
        try:
            run_id = publish(record, uri, store.client(uri))
        except store.Unreachable as error:
            raise StageError(
                f"{error}; {len(waiting)} runs wait in {stage.artifacts / FOLDER}"
            ) from error
        except Exception as error:  # noqa: BLE001 - one odd run must not keep the others waiting
            failed.append(store.redact(f"{record.key}: {error}"))
        else:
            print(f"{record.key}: published as run {run_id}")
    if failed:
        raise StageError("some runs were not published:\n  " + "\n  ".join(failed))


if __name__ == "__main__":
    sys.exit(run_stage("sync", main))
