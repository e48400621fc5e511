"""What a stage holds to log with: parameters, metrics by step, files; never in the stage's way.

    with start_run("train", config, name="amr seed 0", artifacts=stage.artifacts) as run:
        run.log_metrics({"val/clean_acc": 0.81, "val/robust_acc/both": 0.44}, step=3)
        run.log_artifact(folder / "best", "checkpoint")

All of it goes to a record on disk (`record.py`), which a thread publishes (`publish.py`). Called
again with the same stage, name and settings after a kill, `start_run` goes on in the same run; when
another live process has that run, it starts one of its own.
"""

import hashlib
import json
import logging
import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from filelock import FileLock

from components.config import Config, flatten, to_dict
from components.config.evaluate import TrackingSection
from components.files import try_lock
from mlflow_tracking import lineage, names, store
from mlflow_tracking.linked import DataSet, model_entry
from mlflow_tracking.publish import Publisher, publish, try_publish
from mlflow_tracking.record import FOLDER, RUNNING, Record, now_ms
from mlflow_tracking.system import Sampler

log = logging.getLogger(__name__)

OWNER = "owner.lock"  # held as long as the run goes on
DESCRIPTIONS = {
    "train": "Training; `val/...` are held-out training subjects, by epoch.",
    "tune": "Search by validation robust accuracy in the worst cell; trials are nested runs.",
    "evaluate": "Test split under the whole attack suite; figures with intervals in the table.",
}


class Run:
    """One run, from its start to its end in this process."""

    def __init__(
        self,
        record: Record,
        lock: FileLock | None,
        tracking: TrackingSection,
        above: Record | None = None,
        watched: bool = False,
    ) -> None:
        self.record = record
        self._lock = lock
        self._tracking = tracking
        self._above = above
        self._others: list[Record] = []  # ended runs to which this one has added something
        self._publisher = Publisher(record, store.tracking_uri(tracking))
        self._sampler = Sampler(record) if watched else None

    @property
    def key(self) -> str:
        """The run's name on this side, known at once; a tag of the run in MLflow."""
        return self.record.key

    @property
    def run_id(self) -> str | None:
        """The run's id in MLflow; None as long as no server has answered."""
        run_id: str | None = self.record.published()["run_id"]
        return run_id

    def publish(self) -> str:
        """Publish what there is and wait for it; the run's id. Raises e.g. store.Unreachable."""
        uri = store.tracking_uri(self._tracking)
        return publish(self.record, uri, store.client(uri))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set or replace tags. `mlflow.note.content` is the description on the run's page."""
        self.record.update(tags=names.texts(tags, names.TAG_LIMIT))
        self._publisher.poke()

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, at: float | None = None
    ) -> None:
        """Log metric values at `step` (names: `names.py`). The first value of a step stands.

        at: seconds since 1970 when they were measured, unless now.
        """
        values = {names.clean_name(name): value for name, value in metrics.items()}
        self.record.add_metrics(values, step, int(1000 * at) if at else None)
        self._publisher.poke()

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Log a file, or a folder with all its files, as it is now, under `folder`."""
        self.record.update(artifacts=self.record.keep(path, folder))
        self._publisher.poke()

    def log_text(self, content: str, name: str, folder: str = "") -> None:
        """Log `content` as a file called `name`."""
        kept = self.record.keep_text(store.redact(content), name, folder)
        self.record.update(artifacts=kept)
        self._publisher.poke()

    def log_data_set(self, data: DataSet, context: str) -> None:
        """Say which clips the run reads; context: what for, such as "train"."""
        self.record.update(data_sets={context: data.entry(context)})
        self._publisher.poke()

    def log_model(self, key: str, name: str, data: DataSet, **about: Any) -> None:
        """Say that the run made or measured a model, after its figures (`linked.model_entry`).

        key: what the model is known by, the same in all runs: the hash of its weights
        """
        self.record.update(models={key: model_entry(self.record, name, data, **about)})
        self._publisher.poke()

    def model_id(self, key: str) -> str | None:
        """MLflow's id of a model; None as long as it has not been published."""
        model_id: str | None = self.record.published()["models"].get(key, {}).get("id")
        return model_id

    def headline(self, metrics: Mapping[str, float], prefix: str = "") -> None:
        """Log final figures here and, with `prefix`, on the run of the whole pipeline."""
        self.log_metrics(metrics)
        if self._above:
            values = {names.clean_name(f"{prefix}{k}"): v for k, v in metrics.items()}
            self._above.add_metrics(values, 0)

    def add_to(self, other: Record, metrics: Mapping[str, float]) -> None:
        """Add figures to the record of a run that has ended, beside those of any earlier time."""
        steps = [p.step for p in other.points() if p.name in metrics]
        other.add_metrics(metrics, max(steps, default=-1) + 1)
        self._others.append(other)

    def end(self, status: str = "FINISHED") -> bool:
        """End the run (FINISHED, FAILED or KILLED); whether all of it has reached MLflow.

        Whoever ends a run by Ctrl-C does not wait for a server.
        """
        patience = min(self._tracking.patience, 0.5 if status == "KILLED" else math.inf)
        if self._sampler:
            self._sampler.stop()
        for record in (self._above, self.record):
            if record:
                record.update(status=status, ended_at=now_ms())
        sent = self._publisher.finish(patience)
        if not sent:
            log.warning(
                "MLflow has not taken everything of run %s (%s); it is kept in %s. "
                "Send it later with: python -m pipelines.sync",
                self.key,
                self._publisher.error or "too slow",
                self.record.folder,
            )
        for other in self._others if sent else ():
            try_publish(other, store.tracking_uri(self._tracking))
        if self._lock:
            self._lock.release()
            self._lock = None
        return sent

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.end()
            return
        self.set_tags({"error": f"{type(error).__name__}: {error}"})
        self.end("FAILED" if isinstance(error, Exception) else "KILLED")


def start_run(
    stage: str,
    config: Config,
    *,
    name: str,
    artifacts: Path,
    parent: str | None = None,
    tags: Mapping[str, Any] | None = None,
    description: str = "",
) -> Run:
    """Open the run of a stage, or of one trial of it (`parent` is the outer run's `key`).

    Without `parent` the run lies under the run of the present `dvc repro`, when there is one.
    All settings become parameters, the lineage tags and an artifact. Nothing here waits for a
    server, and a server that does not answer is no error.
    """
    above = None if parent else pipeline_run(config, artifacts)
    label = f"{_slug(stage)}-{_slug(name)}-{_fingerprint(config)}"
    record, lock = _interrupted(artifacts / FOLDER, label)
    if record:
        record.update(tags={"resumed": str(now_ms())})
        log.info("going on in MLflow run %s", record.key)
    else:
        facts = lineage.collect(config, artifacts)
        about = {
            "stage": stage,
            **{"model": config.run, "recipe": config.recipe, "variant": config.variant},
            **{"seed": config.seed, "method": config.train.method},
            **lineage.tags(facts),
            **names.origin(stage),
            "mlflow.note.content": description or DESCRIPTIONS.get(stage, stage),
            **(tags or {}),
        }
        record = Record(artifacts / FOLDER / f"{label}-{uuid.uuid4().hex[:8]}")
        # Before anybody can see the record and think it interrupted.
        lock = try_lock(record.folder / OWNER)
        record.create(
            experiment=config.tracking.experiment,
            name=name if name.startswith(stage) else f"{stage} {name}",
            parent=parent or (above.key if above else None),
            params=names.texts(flatten(config)),
            tags=names.texts(about, names.TAG_LIMIT),
            artifacts=_lineage_files(record, config, facts),
        )
    if above:
        above.update(status=RUNNING, ended_at=None)
    # A nested run is on the machine whose load its parent records already.
    watched = config.tracking.system_metrics and parent is None
    return Run(record, lock, config.tracking, above, watched)


def pipeline_run(config: Config, artifacts: Path) -> Record | None:
    """The run above all stages of one `dvc repro`; None when nothing of that kind started this."""
    command = lineage.command()
    if command is None:
        return None
    digest = hashlib.sha256(command.encode()).hexdigest()[:16]
    record = Record(artifacts / FOLDER / f"pipeline-{digest}")
    if record.body():
        return record
    facts = lineage.collect(config, artifacts)
    tags = {
        "stage": "pipeline",
        **lineage.tags(facts),
        **names.origin("demo"),
        "mlflow.source.name": "dvc repro",
        "mlflow.note.content": "All stages of one `dvc repro`; each is a nested run.",
    }
    commit = str(facts["git_commit"] or "no commit")[:7]
    return record.create(
        experiment=config.tracking.experiment,
        name=os.environ.get("DVC_EXP_NAME") or f"pipeline {commit} seed {config.seed}",
        params=names.texts(flatten(config)),
        tags=names.texts(tags, names.TAG_LIMIT),
    )


def _interrupted(root: Path, label: str) -> tuple[Record | None, FileLock | None]:
    """The newest run of this label that a kill left open, locked; (None, None) without one."""
    found = [Record(file.parent) for file in root.glob(f"{label}-????????/record.json")]
    for record in sorted(found, key=lambda record: record.body()["started_at"], reverse=True):
        lock = try_lock(record.folder / OWNER)
        if lock and record.body()["status"] == RUNNING:
            return record, lock
        if lock:
            lock.release()
    return None, None


def _lineage_files(
    record: Record, config: Config, facts: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    settings = yaml.safe_dump(to_dict(config), sort_keys=False)
    texts = {
        "params.yaml": store.redact(settings),
        "environment.txt": lineage.environment(),
        "lineage.json": json.dumps(facts, indent=2, default=str) + "\n",
    }
    kept: dict[str, dict[str, str]] = {}
    for name, content in texts.items():
        kept |= record.keep_text(content, name, "lineage")
    if (store.ROOT / "dvc.lock").is_file():
        kept |= record.keep(store.ROOT / "dvc.lock", "lineage")
    return kept


def _fingerprint(config: Config) -> str:
    values = {k: v for k, v in flatten(config).items() if not k.startswith("tracking.")}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def _slug(label: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "-" for c in label)
