"""What a run that cannot go on tells its user, and what is left for Ray to try again."""

import errno
import json

import pytest
import torch
from ray.exceptions import OutOfMemoryError
from ray.train.v2.api.exceptions import TrainingFailedError

from components.checkpoint import CheckpointError
from components.shards import ShardError, storage
from components.shards.storage import open_store
from components.training.worker import STOP, _beyond_retry, _read_note, _write_note
from pipelines._ray import _explain, _open
from pipelines._stage import StageError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "train.accumulate"),
        (MemoryError(), "out of memory: MemoryError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), "amp=bf16"),
        (OSError(errno.ENOSPC, "No space left on device"), "ray.storage elsewhere"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no space left for checkpoints"),
        (ShardError("shard 3 is damaged"), "shard 3 is damaged"),
        (CheckpointError("does not fit"), "does not fit"),
        (OSError(errno.ECONNRESET, "Connection reset"), None),
        (RuntimeError("Connection closed by peer"), None),
    ],
)
def test_only_what_would_happen_again_is_not_retried(error, told):
    message = _beyond_retry(error)
    assert (message is None) == (told is None)
    assert told is None or told in message


def test_the_note_for_the_next_attempt_is_read_back(tmp_path):
    spec = {"run": str(tmp_path / "run")}
    assert _read_note(spec) is None
    _write_note(spec, "no space")
    assert _read_note(spec) == "no space"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            TrainingFailedError("...\nOSError: [Errno 28] No space left on device"),
            "no space left for checkpoints",
        ),
        (
            TrainingFailedError("ray.exceptions.OutOfMemoryError: killed"),
            "a node ran out of memory",
        ),
        (OutOfMemoryError("5 worker(s) were killed\n- objects"), "a node ran out of memory"),
        (TrainingFailedError("Traceback\nValueError: odd"), "ValueError: odd"),
    ],
)
def test_a_failed_run_says_why_and_where_it_goes_on(error, told, tmp_path):
    store, home = open_store(tmp_path), str(tmp_path)
    said = _explain(error, store, home)
    assert told in said and home in said and "run the same command again" in said
    (tmp_path / STOP).write_text(json.dumps({"message": "the worker's own words"}))
    assert "the worker's own words" in _explain(error, store, home)


def test_a_key_in_the_storage_uri_is_not_told(tmp_path):
    said = _explain(TrainingFailedError("odd"), open_store(tmp_path), "s3://me:secret@runs/of")
    assert "secret" not in said and "s3://***@runs/of" in said


def test_a_storage_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StageError, match="cannot write to the run storage .*set ray.storage"):
        _open(str(tmp_path / "file" / "runs"))


def test_a_note_that_finds_no_room_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(temporary, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "publish", full)
    with pytest.raises(OSError, match="No space left"):
        open_store(tmp_path).write(STOP, b"{}")
    assert not list(tmp_path.iterdir())
