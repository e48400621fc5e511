"""One training run on Ray Train V2, as the train and the tune stage both need it.

A run lives in `<storage>/<name>` while it trains; running it again under the same name goes on
from its last checkpoint. When it is finished, `best` and `last` are copied out and the run's folder
is removed, so that the next run under this name starts afresh.
"""

import contextlib
import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.torch import TorchTrainer

from components.address import join, parse_address
from components.checkpoint import CONFIG, WEIGHTS
from components.config import Config, to_dict
from components.config.train import RaySection
from components.shards.storage import Store, open_store
from components.training.memory import ONE_ARENA
from components.training.state import POSITION
from components.training.worker import STOP, train_worker
from mlflow_tracking.store import redact
from pipelines._cluster import is_local
from pipelines._network import NodeTorchConfig
from pipelines._stage import StageError

log = logging.getLogger("train")

# Restarts after lost workers within one command. A run that loses them more often has a fault that
# a restart does not mend; and after a chain of lost nodes the same command goes on by itself.
MAX_FAILURES = 3


@dataclass(frozen=True)
class TrainResult:
    """A finished run: folders of the best and the last model, and one row of metrics an epoch.

    metrics: the row of the best epoch, by worst-case validation robust accuracy.
    """

    best: Path
    last: Path
    history: list[dict[str, Any]]
    metrics: dict[str, Any]


def run_training(
    config: Config,
    *,
    name: str,
    storage: str | Path,
    shards: str,
    out: Path,
    callbacks: Sequence[Any] = (),
    progress: Any = None,
    keep_run: bool = False,
) -> TrainResult:
    """Train as `config` says, going on where an earlier call under `name` was interrupted.

    storage:   absolute folder or URI that all nodes see; shards: likewise, of sealed shards
    out:       local folder that gets `best/` and `last/`
    callbacks: run in Ray's controller (`ray.tune.integration.ray_train.TuneReportCallback`)
    progress:  actor that takes messages, see `_progress.progress_channel`
    Needs a running Ray. Raises StageError with what to do; what was trained so far stays stored.
    """
    _check_room(config.ray, local=is_local(config.ray))
    if is_local(config.ray):
        # Nobody reclaims the nodes of a local Ray, and nobody collects its metrics.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    # A worker's report waits until the controller asks for it, by default every 2 s: no epoch was
    # shorter than that.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    home = join(str(storage), name)
    runs, store = _open(str(storage)), _open(home)
    store.remove(STOP)
    spec = {
        "config": to_dict(config),
        "shards": shards,
        "run": home,
        "progress": progress,
    }
    # mypy sees the names that `ray.train` had before Train V2, with fewer arguments.
    trainer = TorchTrainer(
        train_worker,  # type: ignore[arg-type]
        train_loop_config=spec,
        scaling_config=_scaling(config.ray),
        torch_config=NodeTorchConfig(backend="nccl" if config.ray.gpus_per_worker else "gloo"),
        run_config=RunConfig(  # type: ignore[call-arg]
            name=name,
            storage_path=str(storage) if runs.local else runs.root,
            storage_filesystem=None if runs.local else runs.filesystem,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="rank"),
            callbacks=list(callbacks),
            # Ray calls the training function in a thread, for which glibc would open an arena that
            # `keep_freed_memory` does not reach; only the environment says so before any thread.
            worker_runtime_env={"env_vars": ONE_ARENA},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        with _ctrl_c():
            result = trainer.fit()
    except (TrainingFailedError, OutOfMemoryError, RayActorError) as error:
        # The last two mean Ray's controller of the run: it shares its node with the workers.
        raise StageError(_explain(error, store, home)) from error
    stopped = (getattr(result, "return_value", None) or {}).get("stopped")
    if stopped:
        raise StageError(f"training stopped: {stopped}. {_how_to_go_on(home)}")
    finished = _collect(result, out)
    if not keep_run:
        store.filesystem.delete_dir(store.root)
    return finished


@contextlib.contextmanager
def _ctrl_c() -> Iterator[None]:
    """KeyboardInterrupt where Ray Train would end the process as if all were well.

    Its own handler of SIGINT, which it leaves behind, aborts the run and then exits with status 0.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        raise KeyboardInterrupt from end
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def run_storage(config: Config, artifacts: Path) -> str:
    """Where runs keep their checkpoints until they are finished; all nodes must see it.

    Outside of DVC's outputs, which `dvc repro` removes before it runs a stage again.
    """
    given = config.ray.storage
    return parse_address(given, "storage").uri if given else str(artifacts / "runs")


def _check_room(section: RaySection, *, local: bool) -> None:
    """StageError when a local Ray could never hold the workers: Train would wait for ever.

    A cluster may grow, so there it is said and waited for.
    """
    have = ray.cluster_resources()
    for name, each in (("CPU", section.cpus_per_worker), ("GPU", section.gpus_per_worker)):
        if section.workers * each > have.get(name, 0.0):
            few = (
                f"{section.workers} workers with {each:g} {name} each need more than the "
                f"{have.get(name, 0.0):g} {name} of this "
            )
            if not local:
                log.warning("%scluster: the training waits until it has grown", few)
                continue
            raise StageError(
                f"{few}machine; set ray.workers or ray.{name.lower()}s_per_worker lower, or "
                "ray.address to a cluster"
            )


def _scaling(section: RaySection) -> ScalingConfig:
    workers: int | tuple[int, int] = section.workers
    if section.max_workers > section.workers:
        workers = (section.workers, section.max_workers)
    resources = {"CPU": section.cpus_per_worker}
    if section.gpus_per_worker:
        resources["GPU"] = section.gpus_per_worker
    return ScalingConfig(
        num_workers=workers,  # type: ignore[arg-type]
        use_gpu=section.gpus_per_worker > 0,
        resources_per_worker=resources,
    )


def _collect(result: Any, out: Path) -> TrainResult:
    """Copy best and last out of the run's storage."""
    last: Checkpoint = result.checkpoint
    best, metrics = max(result.best_checkpoints, key=lambda pair: pair[1]["rank"])
    with last.as_directory() as folder:
        position = json.loads((Path(folder) / POSITION).read_bytes())["position"]
    folders = {"best": best, "last": last}
    for key, checkpoint in folders.items():
        target = out / key
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
        with checkpoint.as_directory() as folder:
            for file in (WEIGHTS, CONFIG):
                shutil.copyfile(Path(folder) / file, target / file)
    return TrainResult(out / "best", out / "last", position["history"], metrics)


def _open(home: str) -> Store:
    try:
        return open_store(home, create=True)
    except OSError as error:
        raise StageError(
            redact(f"cannot write to the run storage {home}: {error}; ")
            + "set ray.storage to a folder or URI that this machine and all workers can write to"
        ) from error


def _explain(error: Exception, store: Store, home: str) -> str:
    text = f"{error}\n{type(error).__name__}"
    last = [line for line in str(error).splitlines() if line.strip()][-1:] or [repr(error)]
    try:
        note = json.loads(store.read(STOP))["message"]
    except FileNotFoundError:
        note = None
    except OSError as lost:
        return redact(f"training failed, and the run storage {home} does not answer: {lost}")
    if note is None and "No space left on device" in text:
        note = "no space left for checkpoints. Free some, or set ray.storage elsewhere"
    elif note is None and "OutOfMemoryError" in text:
        note = (
            "a node ran out of memory. Use fewer ray.workers a node, or a larger train.accumulate"
        )
    return f"training failed: {note or last[0].strip()}. {_how_to_go_on(home)}"


def _how_to_go_on(home: str) -> str:
    return f"All finished epochs are stored in {redact(home)}; run the same command again to go on"
