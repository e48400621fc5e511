"""Brings MLflow's run up to a record: only what it has not yet, again until it is there.

What was sent twice because of a kill in between is stored once: a run is looked up by its key (a
tag) before it is made, and so is a model; MLflow drops an exact repetition of a value (same run,
name, step, time), and an artifact replaces the one of its name. So anyone may call `publish` at any
time.
"""

import logging
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from components.errors import UserError
from components.files import waited_lock
from mlflow_tracking import store
from mlflow_tracking.linked import send_data_set, send_model
from mlflow_tracking.record import RUNNING, Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
Item = TypeVar("Item")

KEY_TAG = "amr.key"
METRICS_AT_ONCE, NAMES_AT_ONCE = 900, 90  # MLflow's limits of a request are 1000 and 100
KINDS = ("params", "tags", "artifacts", "data_sets", "models")
INTERVAL, LONGEST_PAUSE = 5.0, 30.0  # seconds
# What a server answers when the value itself is wrong; it would be refused for ever.
REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MAX_LIMIT_EXCEEDED", "INVALID_STATE"}


def pending(record: Record) -> bool:
    """Whether MLflow lacks anything of the run or of the one above it."""
    body, done = record.body(), record.published()
    return (
        record.count() > done["metrics"]
        or any(_fresh(body, done, kind) for kind in KINDS)
        or _status(body) != done["status"]
        or bool(record.parent and pending(record.parent))
    )


def publish(record: Record, uri: str, client: "MlflowClient") -> str:
    """Bring the run of `record`, and the one above it before, up to date; its id in MLflow.

    Raises store.Unreachable or what the client raised; what did not arrive stays pending.
    UserError when the run was begun at another address, and this store does not have it.
    """
    store.require_answer(uri)
    with waited_lock(record.folder / "publish.lock"):
        parent = record.parent
        above = publish(parent, uri, client) if parent else None
        with store.turn(uri):
            done = record.published()
            if not done["run_id"]:
                done.update(uri=store.redact(uri), run_id=_run_id(record, above, uri, client))
                record.save_published(done)
            elif done["uri"] != store.redact(uri):
                if not _has(client, done["run_id"], record.key):
                    raise UserError(
                        f"run {record.key} was started at {done['uri']}, but the tracking URI is "
                        f"now {store.redact(uri)}; set MLFLOW_TRACKING_URI to the former to send "
                        "the rest"
                    )
                done["uri"] = store.redact(uri)  # the store has moved, with the run in it
                record.save_published(done)
            if pending(record):
                _send(record, done, client)
        return str(done["run_id"])


def _run_id(record: Record, above: str | None, uri: str, client: "MlflowClient") -> str:
    """The run's id; it is made on first use."""
    body = record.body()
    experiment = store.experiment_id(client, uri, body["experiment"])
    # The answer to an earlier attempt may have been lost, so look for the run's key first.
    found = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{record.key}'", max_results=1)
    tags = {KEY_TAG: record.key} | ({"mlflow.parentRunId": above} if above else {})
    run = found[0] if found else client.create_run(
        experiment, body["started_at"], {**body["tags"], **tags}, body["name"]
    )  # fmt: skip
    return str(run.info.run_id)


def _has(client: "MlflowClient", run_id: str, key: str) -> bool:
    """Whether the store has this very run."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id).data.tags.get(KEY_TAG) == key
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def _send(record: Record, done: dict[str, Any], client: "MlflowClient") -> None:
    """Send what is missing, in requests of MLflow's size; after each, remember that it is there."""
    from mlflow.entities import Metric, Param, RunTag

    body, run_id = record.body(), done["run_id"]
    batch = partial(client.log_batch, run_id, synchronous=True)
    for params in _chunks(_fresh(body, done, "params"), NAMES_AT_ONCE):
        _offer(lambda some: batch(params=some), [Param(*pair) for pair in params], record, done)
        done["params"].update(params)
    for tags in _chunks(_fresh(body, done, "tags"), NAMES_AT_ONCE):
        _offer(lambda some: batch(tags=some), [RunTag(*pair) for pair in tags], record, done)
        done["tags"].update(tags)
    for name, entry in _fresh(body, done, "data_sets"):
        _offer(lambda some: send_data_set(client, run_id, some[0]), [entry], record, done)
        done["data_sets"][name] = entry
    for points in _chunks(record.points(done["metrics"]), METRICS_AT_ONCE):
        finite = [Metric(p.name, p.value, p.ms, p.step) for p in points if math.isfinite(p.value)]
        _offer(lambda some: batch(metrics=some), finite, record, done)
        done["metrics"] += len(points)
        record.save_published(done)
    for target, kept in _fresh(body, done, "artifacts"):
        # Without its file it was sent, and a kill came before that was noted.
        files = [path] if (path := record.folder / kept["file"]).is_file() else []
        _offer(partial(_upload, client, run_id, target), files, record, done)
        done["artifacts"][target] = kept["sha256"]
        record.save_published(done)
    for key, entry in _fresh(body, done, "models"):
        # Noted before it is sent: what MLflow refuses for what it is must not come again.
        done["models"][key] = {"id": None, "entry": entry}
        send = partial(_send_model, client, run_id, key, record.folder, done)
        _offer(send, [entry], record, done)
        record.save_published(done)
    status, ended_at = _status(body)
    if status == RUNNING and done["status"] != [status, ended_at]:
        client.update_run(run_id, status)
    elif status != RUNNING:
        client.set_terminated(run_id, status, ended_at)
        shutil.rmtree(record.folder / "files", ignore_errors=True)  # an ended run logs no more
    done["status"] = [status, ended_at]
    record.save_published(done)


def _send_model(
    client: "MlflowClient",
    run_id: str,
    key: str,
    folder: Path,
    done: dict[str, Any],
    entries: list[Any],
) -> None:
    done["models"][key]["id"] = send_model(client, run_id, key, entries[0], folder)


def _upload(client: "MlflowClient", run_id: str, target: str, files: list[Path]) -> None:
    for file in files:
        client.log_artifact(run_id, str(file), target.rpartition("/")[0] or None)


def _status(body: dict[str, Any]) -> list[Any]:
    return [body["status"], body["ended_at"]]


def _fresh(body: dict[str, Any], done: dict[str, Any], kind: str) -> list[tuple[str, Any]]:
    """What is new or another than what MLflow has; of an artifact it has the hash."""
    had = done[kind]
    if kind == "models":
        had = {key: model["entry"] for key, model in had.items()}
    return [
        (name, value)
        for name, value in body.get(kind, {}).items()
        if had.get(name) != (value["sha256"] if kind == "artifacts" else value)
    ]


def _chunks(items: list[Item], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _offer(
    send: Callable[[list[Any]], Any], items: list[Any], record: Record, done: dict[str, Any]
) -> None:
    """Send `items`, and count those that MLflow refuses for what they are: the rest goes on."""
    from mlflow.exceptions import MlflowException

    if not items:
        return
    try:
        send(items)
    except MlflowException as error:
        if error.error_code not in REFUSED:
            raise
        if len(items) == 1:
            log.warning("MLflow refused %s of run %s: %s", items[0], record.key, error)
            done["refused"] += 1
            return
        half = len(items) // 2
        _offer(send, items[:half], record, done)
        _offer(send, items[half:], record, done)


def try_publish(record: Record, uri: str) -> None:
    """Publish what a record has got since its run ended; what is refused now stays pending."""
    try:
        publish(record, uri, store.client(uri))
    except Exception as error:  # noqa: BLE001 - whatever the server does, the stage goes on
        log.warning(
            "run %s has not got its new figures (%s); send them later with: "
            "python -m pipelines.sync",
            record.key,
            error,
        )


class Publisher:
    """A thread that publishes a record while its run goes on. It never disturbs the run."""

    def __init__(self, record: Record, uri: str) -> None:
        self.record, self.uri = record, uri
        self.error = ""  # of the last attempt; empty when it succeeded
        self._client: MlflowClient | None = None
        self._busy = self._over = False
        self._pause = INTERVAL
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-publisher", daemon=True)
        self._thread.start()

    def poke(self) -> None:
        """There is something to publish. While the server is away that is no reason to hurry."""
        if not self.error:
            self._wake.set()

    def finish(self, patience: float) -> bool:
        """Publish the rest; whether MLflow has it all.

        Waits as long as the server takes what it gets, but at most `patience` seconds for one
        that does not.
        """
        mark, seen = time.monotonic(), None
        while pending(self.record):
            self._wake.set()
            done = self.record.published()
            if done != seen:
                mark, seen = time.monotonic(), done
            # A request under way (a large checkpoint) gets more time than a server that is away.
            limit = 6 * patience if self._busy and not self.error else patience
            if time.monotonic() - mark > limit:
                break
            time.sleep(0.1)
        sent = not pending(self.record)
        self._over = True
        self._wake.set()
        if sent:
            # What the record gets from now on is whoever adds it to publish: the thread must not
            # take it to where the store was. One that waits for a server is left to end by itself.
            self._thread.join(patience)
        return sent

    def _work(self) -> None:
        while not self._over:
            self._wake.wait(timeout=self._pause)
            self._wake.clear()
            if self._over:
                return
            self._busy = True
            try:
                if pending(self.record):
                    self._client = self._client or store.client(self.uri)
                    publish(self.record, self.uri, self._client)
            except Exception as error:  # noqa: BLE001 - whatever the server does, the stage goes on
                why = store.redact(f"{type(error).__name__}: {error}")
                if not self.error:
                    log.warning(
                        "MLflow has not taken all yet (%s); see %s", why, self.record.folder
                    )
                self.error = why
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
            else:
                if self.error:
                    log.warning("MLflow has everything of run %s again", self.record.key)
                self.error, self._pause = "", INTERVAL
            finally:
                self._busy = False
