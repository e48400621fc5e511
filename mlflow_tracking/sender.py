"""Carries an outbox's journal to MLflow: in order, in batches, again until it is there."""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from mlflow_tracking import store
from mlflow_tracking.files import locked
from mlflow_tracking.outbox import Outbox

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

KEY_TAG = "amr.key"
BATCH_METRICS = 900
BATCH_NAMES = 90
IDLE_SECONDS = 1.0
LONGEST_PAUSE = 30.0
# What a server answers when the event itself is wrong; it would be refused for ever.
REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MAX_LIMIT_EXCEEDED", "INVALID_STATE"}


def send(
    box: Outbox,
    uri: str,
    connected: Callable[[], "MlflowClient"],
    stop: threading.Event | None = None,
) -> int:
    """Send what is pending in `box`; the number of events sent.

    A kill in between sends the last batch twice, which MLflow stores once. Raises Away or what
    the client raised; the rest stays on disk. `stop` ends it early between two batches.
    """
    store.require_answer(uri)
    with locked(box.folder / "sender.lock"):
        mlflow = connected()
        run_id = ensure_run(box, mlflow, uri)
        sent = 0
        while not (stop and stop.is_set()):
            batch, offset = _next_batch(box)
            if not batch:
                break
            with store.turn(uri):
                refused = _send_batch(box, mlflow, run_id, batch)
            state = box.state()
            box.save_state({**state, "offset": offset, "refused": state["refused"] + refused})
            _drop_files(box, batch)
            sent += len(batch)
    return sent


def ensure_run(box: Outbox, mlflow: "MlflowClient", uri: str) -> str:
    """The run's id in MLflow; the run, and its parent before it, is made on first use.

    The answer to an earlier attempt may have been lost, so look for the run's key first.
    """
    state = box.state()
    here = store.redact(uri)
    if state["run_id"]:
        if state.get("uri") != here:
            raise UserError(
                f"run {box.key} was started at {state.get('uri')}, but the tracking URI is now "
                f"{here}; set MLFLOW_TRACKING_URI to the former to send the rest"
            )
        return state["run_id"]
    about = box.about
    tags = dict(about["tags"])
    if about.get("parent"):
        parent = Outbox(box.folder.parent / about["parent"])
        with locked(parent.folder / "sender.lock"):
            tags["mlflow.parentRunId"] = ensure_run(parent, mlflow, uri)
    with store.turn(uri):
        experiment = store.experiment_id(mlflow, uri, about["experiment"])
        found = mlflow.search_runs([experiment], f"tags.`{KEY_TAG}` = '{box.key}'", max_results=1)
        run = found[0] if found else None
        if run is None:
            run = mlflow.create_run(
                experiment,
                start_time=about["start_ms"],
                tags={**tags, KEY_TAG: box.key},
                run_name=about["name"],
            )
    run_id: str = run.info.run_id
    box.save_state({**state, "run_id": run_id, "uri": here, "experiment_id": experiment})
    return run_id


def _next_batch(box: Outbox) -> tuple[list[dict[str, Any]], int]:
    """The next events that fit one request, and the offset after them."""
    start = offset = box.state()["offset"]
    batch: list[dict[str, Any]] = []
    metrics = names = 0
    for event, after in box.events(start):
        kind, count = event["kind"], len(event.get("values", ()))
        if kind == "torn":
            offset = after
            continue
        alone = kind in ("artifact", "status")
        metrics += count if kind == "metrics" else 0
        names += count if kind in ("params", "tags") else 0
        if batch and (alone or metrics > BATCH_METRICS or names > BATCH_NAMES):
            break
        batch.append(event)
        offset = after
        if alone:
            break
    return batch, offset


def _send_batch(
    box: Outbox, mlflow: "MlflowClient", run_id: str, batch: list[dict[str, Any]]
) -> int:
    """Send one batch; the number of events that MLflow refused for what they are."""
    from mlflow.exceptions import MlflowException

    try:
        _post(box, mlflow, run_id, batch)
    except MlflowException as error:
        if error.error_code not in REFUSED:
            raise
        if len(batch) > 1:
            return sum(_send_batch(box, mlflow, run_id, [event]) for event in batch)
        log.warning("MLflow refused an event of run %s: %s", box.key, error)
        return 1
    return 0


def _post(box: Outbox, mlflow: "MlflowClient", run_id: str, batch: list[dict[str, Any]]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    first = batch[0]
    if first["kind"] == "artifact":
        file = box.folder / first["file"]
        # It is gone when a kill came between sending it and remembering that it was sent.
        if file.is_file():
            mlflow.log_artifact(run_id, str(file), first["folder"] or None)
    elif first["kind"] == "status":
        _set_status(mlflow, run_id, first)
    else:
        of = {
            kind: [e for e in batch if e["kind"] == kind] for kind in ("metrics", "params", "tags")
        }
        mlflow.log_batch(
            run_id,
            metrics=[
                Metric(key, value, event["ms"], event["step"])
                for event in of["metrics"]
                for key, value in event["values"].items()
            ],
            params=[Param(k, v) for event in of["params"] for k, v in event["values"].items()],
            tags=[RunTag(k, v) for event in of["tags"] for k, v in event["values"].items()],
            synchronous=True,
        )


def _set_status(mlflow: "MlflowClient", run_id: str, event: dict[str, Any]) -> None:
    if event["value"] == "RUNNING":
        mlflow.update_run(run_id, status="RUNNING")
    else:
        mlflow.set_terminated(run_id, status=event["value"], end_time=event["ms"])


def _drop_files(box: Outbox, batch: list[dict[str, Any]]) -> None:
    for event in batch:
        if event["kind"] == "artifact":
            # It is gone already when a kill came before the offset was noted.
            shutil.rmtree((box.folder / event["file"]).parent, ignore_errors=True)


class Sender:
    """A thread that keeps an outbox sent while its run goes on. It never disturbs the run."""

    def __init__(self, box: Outbox, uri: str) -> None:
        self.box = box
        self.uri = uri
        self.failing_since: float | None = None
        self.sending_since: float | None = None
        self.error = ""
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._client: MlflowClient | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow-sender", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to send."""
        self._wake.set()

    def finish(self, patience: float) -> bool:
        """Send the rest; whether all is sent.

        Waits as long as the server takes what it gets, but at most `patience` seconds for one
        that does not.
        """
        self._hurry.set()
        self._wake.set()
        mark, sent = time.monotonic(), -1
        while self._thread.is_alive() and self.box.pending():
            offset = self.box.state()["offset"]
            if offset != sent:
                mark, sent = time.monotonic(), offset
            # A request under way (a large checkpoint) gets more time than a server that is away.
            limit = patience if self.failing_since or not self.sending_since else 6 * patience
            if time.monotonic() - mark > limit:
                break
            time.sleep(0.05)
        self._stop.set()
        self._wake.set()
        if self.failing_since is None:
            self._thread.join(timeout=1.0)
        return self.box.pending() == 0

    def _connected(self) -> "MlflowClient":
        if self._client is None:
            self._client = store.client(self.uri)
        return self._client

    def _work(self) -> None:
        pause = IDLE_SECONDS
        while not self._stop.is_set():
            # While the server is away, new metrics are no reason to try sooner; the end is.
            (self._wake if self.failing_since is None else self._hurry).wait(timeout=pause)
            self._wake.clear()
            if self._stop.is_set():
                return
            if self._hurry.is_set():
                time.sleep(0.2)
            pause = IDLE_SECONDS if self._try() else min(pause * 2, LONGEST_PAUSE)

    def _try(self) -> bool:
        self.sending_since = time.monotonic()
        try:
            send(self.box, self.uri, self._connected, self._stop)
        except Exception as error:  # noqa: BLE001 - whatever the server does, training goes on
            if self.failing_since is None:
                self.failing_since = time.monotonic()
                log.warning("MLflow is away (%s); metrics are kept in %s", error, self.box.folder)
            self.error = str(error)
            return False
        finally:
            self.sending_since = None
        if self.failing_since is not None:
            log.warning("MLflow answers again; run %s is up to date", self.box.key)
        self.failing_since, self.error = None, ""
        return True
