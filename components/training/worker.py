"""The one place where the training loop meets Ray Train: runs on every worker of a run.

`spec`, the trainer's `train_loop_config`, is plain values: `config` (the settings as a dict),
`shards` (folder or URI), `run` (this run's folder or URI), and `progress` (an actor that takes
progress from rank 0, or None).
"""

import errno
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint
from ray.train.torch import get_device

from components.checkpoint import initial_model
from components.config import Config, from_dict, to_dict
from components.errors import UserError
from components.evaluation.piece import threat_of
from components.models import build_model
from components.shards.storage import open_store
from components.training.layout import channels_last
from components.training.loop import Progress, WorkerContext, train_epochs
from components.training.memory import keep_freed_memory
from components.training.shard_data import open_data
from components.training.state import TrainState, load_state, new_state, save_state
from components.training.step import NonFiniteLoss
from components.training.sums import averages_of

STOP = "stop.json"
LOOK_EVERY = 0.5  # seconds between progress messages


def train_worker(spec: dict[str, Any]) -> dict[str, Any]:
    """Train, report every epoch, and return `{"stopped": message or None}`.

    What a retry cannot mend leaves a note in the run's folder: the workers that Ray starts again
    find it and return at once, so that no attempt is wasted. All other errors are Ray's to retry.
    """
    note = _read_note(spec)
    if note is not None:
        return {"stopped": note}
    try:
        _train(spec)
    except NonFiniteLoss as error:
        # All workers get here at the same step, so they can simply return.
        return {"stopped": _save_clips(spec, error)}
    except (RuntimeError, MemoryError, OSError, ValueError) as error:
        message = _beyond_retry(error)
        if message is not None:
            _write_note(spec, message)
        raise
    return {"stopped": None}


def checkpoint_config(config: Config, classes: list[int]) -> dict[str, Any]:
    """What `config.json` of this run's checkpoints says."""
    dumped = to_dict(config)
    return {
        "model": dumped["model"],
        "num_classes": len(classes),
        "classes": classes,
        **{key: dumped[key] for key in ("seed", "data", "shard", "threat", "train")},
    }


def _train(spec: dict[str, Any]) -> None:
    config = from_dict(spec["config"])
    torch.set_num_threads(max(1, int(config.ray.cpus_per_worker)))
    keep_freed_memory()
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = torch.device("cpu")
    if config.ray.gpus_per_worker:
        device = get_device()
    data, classes = open_data(config, spec["shards"], rank=rank, world=world, device=str(device))
    about = checkpoint_config(config, classes)
    state = _state(config, about, device)
    rows = train_epochs(
        state,
        data,
        config.train,
        threat_of(config.threat),
        seed=config.seed,
        worker=WorkerContext(rank, device),
        on_step=_progress_reporter(spec["progress"])
        if rank == 0 and spec["progress"] is not None
        else None,
    )
    for row in rows:
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as folder:
            checkpoint = None
            if rank == 0:
                target = Path(folder) / "checkpoint"
                save_state(target, state, {**about, "epoch": row["epoch"]})
                checkpoint = Checkpoint.from_directory(target)
            name = f"epoch_{row['epoch']:05d}"
            ray.train.report(row, checkpoint=checkpoint, checkpoint_dir_name=name)


def _state(config: Config, about: dict[str, Any], device: torch.device) -> TrainState:
    """A new state, the same on every worker, or that of the run's last checkpoint."""
    torch.manual_seed(config.seed)
    last = ray.train.get_checkpoint()
    build = initial_model if last is None else build_model
    model = build({**about["model"], "num_classes": about["num_classes"]}).to(device)
    if device.type == "cuda":
        channels_last(model)
    train = config.train
    state = new_state(model, lr=train.lr, ema=train.ema)
    if last is not None:
        with last.as_directory() as folder:
            load_state(Path(folder), state)
    return state


def _progress_reporter(channel: Any) -> Any:
    reported = 0.0

    def report(progress: Progress) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported < LOOK_EVERY and progress.step < progress.steps:
            return
        reported = now
        channel.put.remote(
            {
                "kind": "step",
                "epoch": progress.epoch,
                "epochs": progress.epochs,
                "step": progress.step,
                "steps": progress.steps,
                "clips_per_s": progress.clips / max(progress.seconds, 1e-9),
                **averages_of(progress.sums.tolist()),
            }
        )

    return report


def _beyond_retry(error: Exception) -> str | None:
    """A message for what would only happen again; None for what Ray should retry."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return (
            f"out of memory: {text.splitlines()[0] if text else type(error).__name__}. Set a "
            "larger train.accumulate (same batch, less memory), train.amp=bf16, or a smaller "
            "train.batch_size; more ray.workers share the batch, too"
        )
    full = "No space left on device" in text
    if isinstance(error, OSError) and (full or error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return f"no space left for checkpoints ({error}). Free some, or set ray.storage elsewhere"
    if isinstance(error, UserError):
        return text
    return None


def _save_clips(spec: dict[str, Any], error: NonFiniteLoss) -> str:
    rank = ray.train.get_context().get_world_rank()
    name = f"nonfinite_rank{rank}.json"
    body = {
        "epoch": error.epoch,
        "step": error.step,
        "rank": rank,
        "loss": repr(error.loss),
        "clip_ids": list(error.clip_ids),
    }
    store = open_store(spec["run"], create=True)
    store.write(name, json.dumps(body, indent=1).encode())
    return (
        f"{error} in epoch {error.epoch}, step {error.step}. The step's clips are listed in "
        f"nonfinite_rank*.json in {spec['run']}. Look at these clips, or lower "
        "train.lr, or train with train.amp=fp32"
    )


def _read_note(spec: dict[str, Any]) -> str | None:
    store = open_store(spec["run"])
    if store.size(STOP) is None:
        return None
    return str(json.loads(store.read(STOP))["message"])


def _write_note(spec: dict[str, Any], message: str) -> None:
    try:
        open_store(spec["run"], create=True).write(STOP, json.dumps({"message": message}).encode())
    except OSError as error:
        # Where even a note finds no room, Ray retries and fails in its own time.
        logging.getLogger(__name__).warning("no note for the next attempt: %s", error)
