"""What a stage holds to log with: parameters, metrics by step, files; never in training's way.

    with start_run("train", config, name="amr pgd_at seed 0", artifacts=stage.artifacts) as run:
        run.log_metrics({"val/clean_acc": 0.81, "val/robust_acc/both": 0.44}, step=3)
        run.log_artifact(folder / "best", "checkpoint")

Everything goes to a journal on disk (`outbox.py`) and from there, in the background, to MLflow
(`sender.py`). Called again with the same stage, name and settings after a kill, `start_run` goes
on in the same run; when another live process has that run, it starts one of its own.
"""

import csv
import hashlib
import io
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import yaml

from components.config import Config, flatten, to_dict
from components.errors import UserError
from mlflow_tracking import lineage, names, pipeline, store
from mlflow_tracking.files import locked, read_json, try_lock, write_json
from mlflow_tracking.outbox import FOLDER, Outbox
from mlflow_tracking.sender import BATCH_NAMES, Sender
from mlflow_tracking.system import Sampler

log = logging.getLogger(__name__)

DESCRIPTIONS = {
    "train": "Training; `val/...` are held-out training subjects, by epoch.",
    "tune": "Search by validation robust accuracy in the worst cell; trials are nested runs.",
    "evaluate": "Test split under the whole attack suite; figures with intervals in the table.",
    "seeds": "The same recipe with several seeds: means over the seeds, `.../std` their spread.",
}


class Tracker:
    """One run. It may be pickled or re-opened by `attach` in a worker, which then only appends."""

    def __init__(
        self,
        box: Outbox,
        *,
        sender: Sender | None = None,
        lock: IO[str] | None = None,
        sampler: Sampler | None = None,
        patience: float = 10.0,
    ) -> None:
        self.box = box
        self.parent: Tracker | None = None
        self._sender = sender
        self._lock = lock
        self._sampler = sampler
        self._patience = patience

    @property
    def key(self) -> str:
        """The run's name on this side, known at once; a tag of the run in MLflow."""
        return self.box.key

    @property
    def run_id(self) -> str | None:
        """The run's id in MLflow; None as long as no server has answered."""
        return self.box.state()["run_id"]

    def wait_for_id(self, seconds: float = 60.0) -> str:
        """The run's id in MLflow once the server has answered; Away when it does not."""
        deadline = time.monotonic() + seconds
        while True:
            run_id = self.run_id
            if run_id is not None:
                return run_id
            if time.monotonic() > deadline:
                why = self._sender.error if self._sender else "nothing sends in this process"
                raise store.Away(f"run {self.key} has no id after {seconds:.0f} s: {why}")
            time.sleep(0.05)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters by dotted name; secrets are masked, long values cut with a mark."""
        texts = list(names.texts(params).items())
        for start in range(0, len(texts), BATCH_NAMES):
            self._append("params", values=dict(texts[start : start + BATCH_NAMES]))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set or replace tags."""
        self._append("tags", values=names.texts(tags, names.TAG_LIMIT))

    def describe(self, content: str) -> None:
        """Set the run's description (Markdown), shown on its page."""
        self.set_tags({"mlflow.note.content": content})

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metric values at `step` (names: `names.py`). The first value of a step stands."""
        self.box.append_metrics({names.clean_name(k): v for k, v in metrics.items()}, step)
        self._wake()

    def log_artifact(self, path: Path | str, folder: str = "") -> None:
        """Log a file, or a folder with all its files, as it is now, under `folder`."""
        self.box.append_file(Path(path), folder)
        self._wake()

    def log_text(self, content: str, name: str, folder: str = "") -> None:
        """Log `content` as a file called `name`."""
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / name
            file.write_text(content)
            self.log_artifact(file, folder)

    def log_table(self, rows: Sequence[Mapping[str, Any]], name: str, folder: str = "") -> None:
        """Log rows as `name`.csv, for a spreadsheet."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        out = io.StringIO()
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows(rows)
        self.log_text(out.getvalue(), f"{name}.csv", folder)

    def headline(self, metrics: Mapping[str, float], prefix: str = "") -> None:
        """Log final figures here and, with `prefix`, on the run of the whole pipeline."""
        self.log_metrics(metrics)
        if self.parent is not None:
            self.parent.log_metrics({f"{prefix}{k}": v for k, v in metrics.items()})

    def end(self, status: str = "FINISHED") -> bool:
        """End the run (FINISHED, FAILED or KILLED); whether all of it has reached MLflow."""
        if self._sampler:
            self._sampler.stop()
        self._append("status", value=status)
        sent = True
        if self._sender and not self._sender.finish(self._patience):
            sent = False
            log.warning(
                "MLflow has not taken everything of run %s (%s); it is kept in %s. "
                "Send it later with: python -m pipelines.sync",
                self.key,
                self._sender.error or "too slow",
                self.box.folder,
            )
        if self.parent is not None:
            sent = self.parent.end(status) and sent
        if self._lock:
            self._lock.close()
            self._lock = None
        return sent

    def __enter__(self) -> "Tracker":
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

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": str(self.box.folder)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(Outbox(Path(state["folder"])))  # type: ignore[misc]

    def _append(self, kind: str, **event: Any) -> None:
        self.box.append(kind, **event)
        self._wake()

    def _wake(self) -> None:
        if self._sender:
            self._sender.wake()


_outer: ContextVar[Tracker | None] = ContextVar("outer", default=None)


@contextmanager
def under(run: Tracker) -> Iterator[None]:
    """Runs that stages start inside the block are nested in `run`, with journals beside its own."""
    token = _outer.set(run)
    try:
        yield
    finally:
        _outer.reset(token)


def start_run(
    stage: str,
    config: Config,
    *,
    name: str,
    artifacts: Path,
    parent: str | None = None,
    tags: Mapping[str, Any] | None = None,
    description: str = "",
) -> Tracker:
    """Open the run of a stage, or of one trial or seed of it (`parent` is the outer run's `key`).

    Without `parent` the run lies under that of `under`, else under the run of the present
    `dvc repro`, when there is one.
    All settings become parameters, the lineage tags and an artifact. Nothing here waits for a
    server, and a server that is away is no error.
    """
    outer = _outer.get()
    parent = parent or (outer.key if outer else None)
    root = outer.box.folder.parent if outer else artifacts / FOLDER
    uri = store.tracking_uri(config.tracking)
    facts = lineage.collect(config, artifacts)
    pointer = root / "latest" / f"{_slug(stage)}-{_slug(name)}.json"
    settings = _fingerprint(config)
    above = None if parent else pipeline.current(root, config)
    about = {
        "experiment": config.tracking.experiment,
        "name": name if name.startswith(stage) else f"{stage} {name}",
        "parent": parent or (above.key if above else None),
        "artifacts": os.path.relpath(artifacts, root.parent),
        "tags": names.texts(
            {
                "stage": stage,
                **{"model": config.run, "recipe": config.recipe, "variant": config.variant},
                **{"seed": config.seed, "method": config.train.method},
                **lineage.tags(facts),
                **names.origin(stage),
                "mlflow.note.content": description or DESCRIPTIONS.get(stage, stage),
                **(tags or {}),
            },
            names.TAG_LIMIT,
        ),
    }
    with locked(root / "start.lock"):
        box, lock = _resume(root, pointer, settings)
        fresh = box is None
        if box is None:
            box = Outbox.create(root, f"{_slug(stage)}-{_slug(name)}", about)
            lock = try_lock(box.folder / "owner.lock")
        write_json(pointer, {"key": box.key, "settings": settings})
    tracking = config.tracking
    sender = Sender(box, uri)
    # A nested run is on the machine whose load its parent records already.
    watched = tracking.system_metrics and parent is None
    sampler = Sampler(box) if watched else None
    run = Tracker(box, sender=sender, lock=lock, sampler=sampler, patience=tracking.patience)
    if above is not None:
        run.parent = Tracker(above, sender=Sender(above, uri), patience=tracking.patience)
        run.parent._append("status", value="RUNNING")
    if fresh:
        run.log_params(flatten(config))
        tree = to_dict(config)
        tree["tracking"]["uri"] = store.redact(config.tracking.uri)
        run.log_text(yaml.safe_dump(tree, sort_keys=False), "params.yaml", "lineage")
        run.log_text(lineage.environment(), "environment.txt", "lineage")
        if (store.ROOT / "dvc.lock").is_file():
            run.log_artifact(store.ROOT / "dvc.lock", "lineage")
        run.log_text(json.dumps(facts, indent=2, default=str) + "\n", "lineage.json", "lineage")
    else:
        run.set_tags({"resumed": str(int(box.about["start_ms"]))})
        log.info("going on in MLflow run %s", box.key)
    return run


def attach(artifacts: Path, key: str) -> Tracker:
    """The run `key` for a worker: it appends to the journal; the process that began it sends."""
    folder = artifacts / FOLDER / key
    if not (folder / "run.json").is_file():
        raise UserError(f"{folder} holds no run; was it started with other artifacts?")
    return Tracker(Outbox(folder))


def _resume(root: Path, pointer: Path, settings: str) -> tuple[Outbox | None, IO[str] | None]:
    """The run that a kill left open, with its lock; (None, None) when there is none to go on in."""
    last = read_json(pointer)
    if last.get("settings") != settings:
        return None, None
    box = Outbox(root / last["key"])
    if not box.folder.is_dir() or any(e["kind"] == "status" for e, _ in box.events(0)):
        return None, None
    lock = try_lock(box.folder / "owner.lock")
    return (box, lock) if lock else (None, None)


def _fingerprint(config: Config) -> str:
    values = {k: v for k, v in flatten(config).items() if not k.startswith("tracking.")}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _slug(label: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "-" for c in label)
