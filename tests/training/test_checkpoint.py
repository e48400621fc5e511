"""Checkpoints come back bit for bit; whatever else lies in the folder is refused, not run."""

import json
import pickle  # noqa: TID251 - only to plant one
from pathlib import Path

import pytest
import torch

from components.checkpoint import (
    CheckpointError,
    load_model,
    read_config,
    save_checkpoint,
)
from tests._support.weights import same_weights


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def saved(tmp_path, fresh, section, model_config) -> Path:
    return save_checkpoint(tmp_path / "model", fresh(section()).model, model_config)


def test_same_weights_and_same_answers_come_back(saved, fresh, section, clips):
    model = fresh(section()).model.eval()
    loaded, config = load_model(saved)
    assert same_weights(model, loaded) and not loaded.training
    assert config["classes"] == [1, 2, 3]
    ours, theirs = model(*clips[:3]), loaded(*clips[:3])
    assert torch.equal(ours.logits, theirs.logits)


def test_saving_twice_gives_the_same_bytes(saved, tmp_path, fresh, section, model_config):
    again = save_checkpoint(tmp_path / "again", fresh(section()).model, model_config)
    for name in ("model.safetensors", "config.json"):
        assert (saved / name).read_bytes() == (again / name).read_bytes()


def test_a_new_checkpoint_replaces_the_old_one_whole(saved, fresh, section, model_config):
    other = fresh(section(), seed=1).model
    (saved / "stray.txt").write_text("left from before")
    save_checkpoint(saved, other, model_config)
    assert same_weights(load_model(saved)[0], other)
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_interrupted_write_leaves_the_old_one(saved, fresh, section, model_config, monkeypatch):
    before = read_config(saved)["weights_sha256"]

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(saved, fresh(section(), seed=1).model, model_config)
    assert read_config(saved)["weights_sha256"] == before
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "weights.pkl", "model.bin"])
def test_planted_pickle_is_refused_and_not_executed(saved, tmp_path, name):
    mark = tmp_path / "boom"
    (saved / "model.safetensors").unlink()
    (saved / name).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(CheckpointError, match="unpickling runs code"):
        load_model(saved)
    assert not mark.exists()


def test_pickle_under_the_right_name_is_refused_and_not_executed(saved, tmp_path):
    import hashlib

    mark = tmp_path / "boom"
    data = pickle.dumps(Bomb(mark))
    (saved / "model.safetensors").write_bytes(data)
    config = json.loads((saved / "config.json").read_text())
    config["weights_sha256"] = hashlib.sha256(data).hexdigest()
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_model(saved)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("classes"), "lacks"),
        (lambda c: c.update(format=99), "format"),
        (lambda c: c.update(num_classes=4), "4 classes"),
        (lambda c: c.pop("weights_sha256"), "weights_sha256"),
        (lambda c: c["model"].update(width=0.5), "does not fit"),
    ],
)
def test_wrong_configuration_is_named(saved, change, message):
    config = json.loads((saved / "config.json").read_text())
    change(config)
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_model(saved)


def test_torn_weights_are_noticed(saved):
    data = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(data[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match="sha256"):
        load_model(saved)


def test_missing_folder_and_broken_json_are_named(saved, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        load_model(tmp_path / "nothing")
    (saved / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        load_model(saved)
