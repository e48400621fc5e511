"""From one raw clip, or ready arrays, to a class with probabilities and modality weights.

What the registry's models, `pipelines.predict` and the benchmark all call. A raw clip goes the
very way it would go through the shard stage and the data set, so what is served is what was
evaluated. Nothing is unpickled: the model is safetensors and JSON.
"""

import base64
import binascii
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from components.batch import JOINTS, PERSONS, Batch, ModelOutput, logits_of
from components.checkpoint import load_model
from components.datasets import ClipDataset
from components.errors import UserError
from components.inputs import check_joints, check_pixels
from components.ntu.ids import ClipId
from components.ntu.skeleton import Rejected
from components.shards import Clip, ShardSet
from components.shards.schema import decode_jpeg, encode_frame
from components.sources import get_source
from components.sources.base import Found
from components.sources.ingest import Kept, keep

SETTINGS = "serving.json"
CLIP_SECONDS = 60.0  # a request must not hold a worker of the server for longer
NOBODY = ClipId(1, 1, 1, 1, 1)  # a served clip has no name; only training draws by it


class BadInput(UserError):
    """A request that cannot be answered; the message says why and what is expected."""


@dataclass(frozen=True)
class Prepared:
    """A clip ready for the model, and what a picture of it needs."""

    batch: Batch
    clip: Clip
    flags: tuple[str, ...]


class Predictor:
    """A trained model with the settings of the shards it was trained on.

    shards: `source`, `codec`, `jpeg_quality`, `frames`, `size`, `margin`, `unit` of `shards.json`.
    """

    def __init__(
        self, model: nn.Module, config: Mapping[str, Any], shards: Mapping[str, Any]
    ) -> None:
        self.model = model.eval()
        self.config = config
        self.shards = shards
        self.classes = [int(action) for action in config["classes"]]
        self.names = class_names(self.classes, shards["source"])
        section = config["model"]
        self.rgb_frames, self.rgb_size = section["rgb_frames"], section["rgb_size"]
        self.skeleton_frames = section["skeleton_frames"]

    @classmethod
    def load(cls, checkpoint: Path | str, settings: Path | str) -> "Predictor":
        """From a checkpoint folder and the `serving.json` that was registered with it.

        Raises CheckpointError for anything that is not safetensors and JSON; nothing of it runs.
        """
        return cls.of_checkpoint(checkpoint, json.loads(Path(settings).read_text())["shards"])

    @classmethod
    def of_checkpoint(cls, checkpoint: Path | str, shards: Mapping[str, Any]) -> "Predictor":
        """From a checkpoint folder and the settings of its shards."""
        model, config = load_model(checkpoint)
        return cls(model, config, shards)

    def prepare(self, video: Path, skeleton: Path) -> Prepared:
        """One clip from its two files, as the shard stage and the data set would make it.

        Raises BadInput for files that the shard stage would reject.
        """
        source = get_source(self.shards["source"])
        if video.parent != skeleton.parent:
            raise BadInput("video and skeleton must lie in one folder")
        found = Found(NOBODY._replace(action=self.classes[0]), video.name, skeleton.name)
        try:
            kept = keep(
                source,
                video.parent,
                found,
                frames=self.shards["frames"],
                size=self.shards["size"],
                margin=self.shards["margin"],
                seconds=CLIP_SECONDS,
            )
        except Rejected as error:
            raise BadInput(f"the clip cannot be used: {error}") from error
        clip = as_stored(kept, self.shards)
        held = cast(ShardSet, _Held([clip], self.shards))
        data = ClipDataset(
            held,
            [0],
            self.classes,
            rgb_frames=self.rgb_frames,
            rgb_size=self.rgb_size,
            skeleton_frames=self.skeleton_frames,
        )
        return Prepared(data.batch([0]), clip, kept.flags)

    def prepare_request(self, video_base64: Any, skeleton_text: Any) -> Prepared:
        """One clip from a request's base64 video and skeleton text."""
        for name, value in (("video_base64", video_base64), ("skeleton_text", skeleton_text)):
            if not isinstance(value, str) or not value:
                raise BadInput(f"{name} must be a text that is not empty, got {_kind(value)}")
        try:
            video = base64.b64decode(video_base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadInput(f"video_base64 is not base64: {error}") from error
        with tempfile.TemporaryDirectory(prefix="clip-") as folder:
            paths = Path(folder) / "clip.avi", Path(folder) / "clip.skeleton"
            paths[0].write_bytes(video)
            paths[1].write_bytes(skeleton_text.encode())
            return self.prepare(*paths)

    def check_arrays(self, rgb: Any, skeleton: Any, present: Any) -> Batch:
        """Ready arrays [B, ...] as a batch; BadInput names the one that does not fit.

        rgb [B, 3, T, H, W] in [0, 1]; skeleton [B, 3, S, 25, 2] in the shards' unit;
        present [B, S, 2], or None where every joint that is not zero counts.
        """
        side, frames, steps = self.rgb_size, self.rgb_frames, self.skeleton_frames
        video = _array("rgb", rgb, (3, frames, side, side))
        joints = _array("skeleton", skeleton, (3, steps, JOINTS, PERSONS))
        if present is None:
            mask = (joints != 0).any(dim=3).any(dim=1)
        else:
            mask = _array("present", present, (steps, PERSONS)) > 0
        counts = {video.shape[0], joints.shape[0], mask.shape[0]}
        if len(counts) > 1:
            raise BadInput(f"rgb, skeleton and present hold different numbers of clips: {counts}")
        # Whatever lies at an absent person must not reach the model.
        joints = joints * mask[:, None, :, None, :]
        try:
            check_pixels(video, 0.0, 1.0)
            check_joints(joints, mask, self.shards["unit"])
        except UserError as error:
            raise BadInput(str(error)) from error
        n = video.shape[0]
        return Batch(video, joints, mask, torch.zeros(n, dtype=torch.int64), ("",) * n)

    @torch.inference_mode()
    def predict(self, batch: Batch) -> list[dict[str, Any]]:
        """One answer a clip: label, action, class name, probabilities, modality weights."""
        output = self.model(batch.rgb, batch.skeleton, batch.present)
        probabilities = logits_of(output).float().softmax(1)
        if not torch.isfinite(probabilities).all():
            raise BadInput("the model's answer is not finite; are the inputs of a sane size?")
        weights = output.weights if isinstance(output, ModelOutput) else {}
        return [
            self._answer(probabilities[i], {stage: w[i] for stage, w in weights.items()})
            for i in range(batch.size)
        ]

    def _answer(self, probabilities: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        label = int(probabilities.argmax())
        by_stage = {stage: w.reshape(-1, 2).mean(0).tolist() for stage, w in weights.items()}
        mean = np.mean(list(by_stage.values()), axis=0).tolist() if by_stage else None
        return {
            "label": label,
            "action": self.classes[label],
            "class_name": self.names[label],
            "probability": float(probabilities[label]),
            "probabilities": dict(zip(self.names, probabilities.tolist(), strict=True)),
            "modality_weights": _pair(mean) if mean else None,
            "weights_by_place": {stage: _pair(pair) for stage, pair in by_stage.items()} or None,
        }


def join(batches: Sequence[Batch]) -> Batch:
    """Several batches as one, so that a request of many clips is one forward pass."""
    rgb, skeleton, present, label = (
        torch.cat(column) for column in zip(*(b[:4] for b in batches), strict=True)
    )
    return Batch(rgb, skeleton, present, label, tuple(n for b in batches for n in b.clip_id))


def class_names(actions: Sequence[int], source: str) -> list[str]:
    """A name for each class of a model trained on `source`, all different."""
    names = [get_source(source).class_name(action) for action in actions]
    return [
        name if names.count(name) == 1 else f"{name} (A{action:03d})"
        for name, action in zip(names, actions, strict=True)
    ]


def as_stored(kept: Kept, shards: Mapping[str, Any]) -> Clip:
    """A clip as it would come back from a shard: same codec, same number formats."""
    rgb = kept.rgb
    if shards["codec"] == "jpeg":
        quality, size = shards["jpeg_quality"], shards["size"]
        rgb = np.stack(
            [decode_jpeg(encode_frame(f, "jpeg", quality), size, "the clip") for f in rgb]
        )
    return Clip(
        clip_id=str(kept.found.clip),
        **kept.found.clip._asdict(),
        rgb=rgb,
        rgb_index=np.asarray(kept.rgb_index, np.int32),
        skeleton=np.asarray(kept.people.joints, np.float32),
        present=np.asarray(kept.people.present, bool),
        num_rgb_frames=kept.rgb_frames,
        num_skeleton_frames=len(kept.people.present),
        rgb_fps=float(np.float32(kept.rgb_fps)),
        skeleton_fps=float(np.float32(kept.skeleton_fps)),
    )


class _Held:
    """Clips in memory under the interface by which a data set reads shards."""

    def __init__(self, clips: Sequence[Clip], shards: Mapping[str, Any]) -> None:
        self._clips = clips
        self.size: int = shards["size"]
        self.unit: str = shards["unit"]
        self.clip_ids = [clip.clip_id for clip in clips]
        self.meta = pa.table({"action": [clip.action for clip in clips]})

    def clip(self, i: int) -> Clip:
        """The clip in row `i`."""
        return self._clips[i]


def _array(name: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name} is no array of numbers: {error}") from error
    if array.shape == shape:
        array = array[None]
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape or not len(array):
        raise BadInput(f"{name} must have the shape [B, {_words(shape)}], got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise BadInput(f"{name} holds values that are not finite")
    return torch.from_numpy(np.array(array))


def _words(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _pair(weights: Sequence[float]) -> dict[str, float]:
    return {"rgb": float(weights[0]), "skeleton": float(weights[1])}


def _kind(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:40]
