"""`python -m pipelines.sync`: send to MLflow what earlier stages could not, once it answers."""

import sys

from mlflow_tracking import store
from mlflow_tracking.outbox import FOLDER, Outbox
from mlflow_tracking.sender import send
from pipelines import register
from pipelines._stage import Stage, StageError, run_stage


def main(stage: Stage) -> None:
    """Send what earlier stages could not; what MLflow has already is not sent twice."""
    root = stage.artifacts / FOLDER
    boxes = [Outbox(file.parent) for file in sorted(root.glob("*/run.json"))]
    waiting = [box for box in boxes if box.pending()]
    if waiting:
        _send(stage, waiting)
    else:
        print(f"all {len(boxes)} runs under {root} are in MLflow")
    if register.postponed(stage.artifacts):
        print("registering what could not be registered before")
        register.main(stage)


def _send(stage: Stage, waiting: list[Outbox]) -> None:
    uri = store.tracking_uri(stage.config.tracking)
    failed = []
    for box in waiting:
        try:
            sent = send(box, uri, lambda: store.client(uri))
        except store.Away as error:
            raise StageError(
                f"{error}; {len(waiting)} runs wait in {stage.artifacts / FOLDER}"
            ) from error
        except Exception as error:  # noqa: BLE001 - one odd run must not keep the others waiting
            failed.append(f"{box.key}: {error}")
        else:
            print(f"{box.key}: sent {sent} events to run {box.state()['run_id']}")
    if failed:
        raise StageError("some runs were not sent:\n  " + "\n  ".join(failed))


if __name__ == "__main__":
    sys.exit(run_stage("sync", main))
