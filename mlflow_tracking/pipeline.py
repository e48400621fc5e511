"""One run above all stages of one `dvc repro`, so that they stand together in MLflow."""

import hashlib
import logging
import os
from pathlib import Path

import psutil

from components.config import Config, flatten
from mlflow_tracking import lineage, names
from mlflow_tracking.record import FOLDER, Record

log = logging.getLogger(__name__)

VARIABLE = "AMR_PIPELINE_RUN"


def current(config: Config, artifacts: Path) -> Record | None:
    """The run of the `dvc repro` (or `dvc exp run`) that started this process; None without one.

    DVC tells its stages nothing of the command they belong to, so the command is known by the
    process id and start time of the `dvc` above this process. The environment variable
    AMR_PIPELINE_RUN names it instead where something else starts the stages.
    """
    command = os.environ.get(VARIABLE) or _dvc_process()
    if command is None:
        return None
    folder = artifacts / FOLDER / f"pipeline-{hashlib.sha256(command.encode()).hexdigest()[:16]}"
    if (folder / "record.json").is_file():
        return Record(folder)
    facts = lineage.collect(config, artifacts)
    commit = str(facts["git_commit"] or "no commit")[:7]
    tags = {
        "stage": "pipeline",
        **lineage.tags(facts),
        **names.origin("demo"),
        "mlflow.source.name": "dvc repro",
        "mlflow.note.content": "All stages of one `dvc repro`; each is a nested run.",
    }
    return Record(folder).create(
        experiment=config.tracking.experiment,
        name=os.environ.get("DVC_EXP_NAME") or f"pipeline {commit} seed {config.seed}",
        params=names.texts(flatten(config)),
        tags=names.texts(tags, names.TAG_LIMIT),
    )


def _dvc_process() -> str | None:
    if "DVC_STAGE" not in os.environ:
        return None
    try:
        for process in psutil.Process().parents():
            words = process.cmdline()[:3]
            if any(Path(word).name == "dvc" for word in words):
                return f"{process.pid}@{process.create_time():.0f}"
    except psutil.Error as error:
        log.info("the command above this stage cannot be told (%s); its run has no parent", error)
    return None
