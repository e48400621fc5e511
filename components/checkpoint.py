"""A trained model on disk: safetensors weights plus a JSON configuration, never a pickle.

Training writes these folders; evaluation, the registry and the report read them. The folder
appears under its name only when both files are complete, and the JSON names the sha256 of the
weights, so a torn or exchanged file is noticed.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors_bytes
from safetensors.torch import save as save_tensors_bytes
from torch import Tensor, nn

from components.errors import UserError
from components.models import TwoStream, build_model
from components.models.backbones import load_backbone

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
FORMAT = 1
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy")


class CheckpointError(UserError):
    """A checkpoint folder cannot be read or is not one; the message says what and how to mend."""


def save_checkpoint(folder: str | Path, model: nn.Module, config: Mapping[str, Any]) -> Path:
    """Write `model` and its configuration to `folder`, replacing what is there; the folder.

    config: `{"model": {...}, "num_classes": K, "classes": [...], ...}`, plain JSON values; what
    `build_model` needs must be in it. Raises CheckpointError when it is not.
    """
    _check_config(config, Path(folder))
    weights = save_tensors(model.state_dict())
    body = {**config, "format": FORMAT, "weights_sha256": hashlib.sha256(weights).hexdigest()}
    return write_folder(folder, {WEIGHTS: weights, CONFIG: to_json(body)})


def checkpoint_files(folder: str | Path) -> dict[str, bytes]:
    """The files of a checkpoint by name, as `write_folder` takes them; CheckpointError if none."""
    return {name: _read(Path(folder), name) for name in (WEIGHTS, CONFIG)}


def load_model(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model in eval mode and its configuration, from a folder of `save_checkpoint`.

    Raises CheckpointError for anything else: nothing found there is ever executed.
    """
    folder = Path(folder)
    config = read_config(folder)
    weights = _read(folder, WEIGHTS)
    if hashlib.sha256(weights).hexdigest() != config["weights_sha256"]:
        raise CheckpointError(
            f"{folder / WEIGHTS}: its sha256 is not the one in {CONFIG}; the file is torn or "
            "belongs to another checkpoint: copy the whole folder again, or train again"
        )
    model = build_model({**config["model"], "num_classes": config["num_classes"]})
    try:
        model.load_state_dict(read_tensors(weights, folder / WEIGHTS))
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder / WEIGHTS} does not fit the model that {CONFIG} describes: {error}"
        ) from error
    return model.eval(), config


def initial_model(spec: Mapping[str, Any]) -> TwoStream:
    """The model with which a training run starts.

    spec: as for `build_model`; the published weights that its `rgb_weights` names, if any, are read
        into the video backbone. A checkpoint has them all and needs that file no more.
    Raises CheckpointError for a file that cannot be read, UserError for one that does not fit.
    """
    model = build_model(spec)
    path = spec.get("rgb_weights")
    if path:
        load_backbone(model.rgb, read_state_dict(path))
    return model


def read_config(folder: str | Path) -> dict[str, Any]:
    """The checked `config.json` of a checkpoint folder, without its weights."""
    folder = Path(folder)
    try:
        config = json.loads(_read(folder, CONFIG))
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder / CONFIG} is not JSON: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        got = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(f"{folder / CONFIG}: expected format {FORMAT}, got {got!r}")
    _check_config(config, folder)
    if not isinstance(config.get("weights_sha256"), str):
        raise CheckpointError(f"{folder / CONFIG} names no weights_sha256")
    return config


def save_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Named tensors as the bytes of a safetensors file."""
    return save_tensors_bytes(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    )


def read_tensors(data: bytes, origin: Path) -> dict[str, Tensor]:
    """Named tensors from the bytes of a safetensors file; `origin` is for the message."""
    try:
        return load_tensors_bytes(data)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{origin} is not a safetensors file ({error}); other formats are refused because "
            "reading them can run code"
        ) from error


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a published .safetensors, .pth or .pt file, on the CPU.

    Nothing in the file is executed. Raises CheckpointError for another suffix, a damaged file or
    one that holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"weights file {path} does not exist")
    if path.suffix == ".safetensors":
        return read_tensors(path.read_bytes(), path)
    if path.suffix not in (".pth", ".pt"):
        raise CheckpointError(f"weights file {path}: expected .safetensors, .pth or .pt")
    try:
        # weights_only=True builds tensors and plain containers alone and refuses anything else.
        state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # noqa: BLE001 - the loader raises many kinds; all mean the same
        raise CheckpointError(
            f"{path} is no plain file of tensors; save it again as safetensors"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(
            f"{path} must hold a state dict: a mapping from names to tensors alone"
        )
    return dict(state)


def to_json(body: Mapping[str, Any]) -> bytes:
    """Strict JSON: a NaN in a configuration is a fault."""
    return (json.dumps(body, indent=1, allow_nan=False, sort_keys=True) + "\n").encode()


def write_folder(folder: str | Path, files: Mapping[str, bytes]) -> Path:
    """Write the files so that `folder` holds either all of them or what it held before."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.tmp"
    temporary.mkdir()
    try:
        for name, data in files.items():
            with open(temporary / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            stale = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.old"
            folder.rename(stale)
            temporary.rename(folder)
            shutil.rmtree(stale)
        else:
            temporary.rename(folder)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)
    return folder


def _check_config(config: Mapping[str, Any], folder: Path) -> None:
    missing = [key for key in ("model", "num_classes", "classes") if key not in config]
    if missing:
        raise CheckpointError(f"the configuration of {folder} lacks {missing}")
    if not isinstance(config["model"], Mapping):
        raise CheckpointError(f"the configuration of {folder}: 'model' must be a mapping")
    if len(config["classes"]) != config["num_classes"]:
        raise CheckpointError(
            f"the configuration of {folder}: {config['num_classes']} classes by num_classes, "
            f"{len(config['classes'])} in classes"
        )


def _read(folder: Path, name: str) -> bytes:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no checkpoint folder; it must hold {WEIGHTS}, {CONFIG}")
    path = folder / name
    if not path.is_file():
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
        hint = (
            f"; {pickles[0]} is refused because unpickling runs code: convert it to safetensors "
            "in a place you trust"
            if pickles
            else ""
        )
        raise CheckpointError(f"{path} is missing{hint}")
    return path.read_bytes()
