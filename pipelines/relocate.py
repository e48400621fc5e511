"""`python -m pipelines.relocate`: mend MLflow's file after the project was moved or copied."""

import sys
from pathlib import Path

from mlflow_tracking import moved, store
from pipelines._stage import Stage, StageError, run_stage


def main(stage: Stage) -> None:
    """Give MLflow's records of files the present folder; the file of before is kept beside it."""
    uri = store.tracking_uri(stage.config.tracking)
    file = store.sqlite_file(uri)
    if file is None:
        raise StageError(f"{store.redact(uri)} is no sqlite file; a server knows its own places")
    with store.turn(uri):
        former = moved.former_folders(file)
        if not former:
            print(f"nothing to do: the files of the runs in {file} are where it says")
            return
        changed, copy = moved.relocate(file)
    place = moved.artifacts_of(file)
    for old in former:
        print(f"{old} -> {place}")
    print(f"{changed} records changed; the file of before is {copy}")
    _warn_of_lost(place)


def _warn_of_lost(place: Path) -> None:
    if not place.is_dir():
        print(f"{place} is not there: models and files of earlier runs are where you left them")


if __name__ == "__main__":
    sys.exit(run_stage("relocate", main))
