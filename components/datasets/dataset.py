"""Rows of the shards as batches for models and attacks."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from components.batch import JOINTS, PERSONS, Batch
from components.datasets.augment import PLAIN, Choice, Ranges, augment_rgb, augment_skeleton, draw
from components.datasets.for_each import for_each
from components.datasets.sampling import instants, rgb_rows, skeleton_rows, window_seconds
from components.errors import UserError
from components.shards import Clip, ShardSet


class Sampled(NamedTuple):
    """Clips before they become tensors.

    rgb uint8 [B, T, H, W, 3] at the shards' size; joints float32 [B, S, M, V, 3]; present bool
    [B, S, M].
    """

    rgb: np.ndarray
    joints: np.ndarray
    present: np.ndarray


class ClipDataset:
    """Clips of one split, sampled in time and scaled.

    With `augment`, each clip is changed by one choice for both streams, drawn by (seed, clip,
    epoch): any worker, batch or resumed run makes the same.
    """

    def __init__(
        self,
        shards: ShardSet,
        rows: Sequence[int] | np.ndarray,
        classes: Sequence[int],
        *,
        rgb_frames: int,
        rgb_size: int,
        skeleton_frames: int,
        augment: Ranges | None = None,
        seed: int = 0,
    ) -> None:
        self.shards = shards
        self.rows = np.asarray(rows, dtype=np.int64).tolist()
        self.classes = list(classes)
        self.rgb_frames = rgb_frames
        self.rgb_size = rgb_size
        self.skeleton_frames = skeleton_frames
        self.augment = augment
        self.seed = seed
        self._samples: dict[int, tuple[np.ndarray | None, np.ndarray]] = {}
        actions = shards.meta.column("action").to_numpy()[np.asarray(self.rows, np.int64)]
        place = {action: index for index, action in enumerate(self.classes)}
        unknown = sorted(set(actions.tolist()) - place.keys())
        if unknown:
            raise UserError(
                f"clips of action {unknown[0]} are in the split but not among the run's "
                f"{len(self.classes)} classes; were the shards rebuilt since the model was trained?"
            )
        self.labels = np.array([place[a] for a in actions.tolist()], dtype=np.int64)
        self.clip_ids = [shards.clip_ids[row] for row in self.rows]

    @classmethod
    def for_model(
        cls,
        shards: ShardSet,
        rows: Sequence[int] | np.ndarray,
        classes: Sequence[int],
        model: Mapping[str, Any],
        *,
        augment: Ranges | None = None,
        seed: int = 0,
    ) -> "ClipDataset":
        """Clips of the frames and size in `model`, a `model` section as plain values."""
        return cls(
            shards,
            rows,
            classes,
            rgb_frames=model["rgb_frames"],
            rgb_size=model["rgb_size"],
            skeleton_frames=model["skeleton_frames"],
            augment=augment,
            seed=seed,
        )

    def __len__(self) -> int:
        return len(self.rows)

    def batch(
        self, positions: Sequence[int] | np.ndarray, epoch: int = 0, device: str = "cpu"
    ) -> Batch:
        """The clips at these positions of the split, 0 <= position < len.

        On the CPU a clip goes from the shard's bytes to its place in the batch while it is in the
        processor's cache. To another device pixels travel as bytes and become numbers there: the
        same numbers.
        """
        where = [int(p) for p in positions]
        labels, ids = torch.from_numpy(self.labels[where]), tuple(self.clip_ids[p] for p in where)
        if device != "cpu":
            sampled = self.read(where, epoch)
            pixels = _resize(torch.from_numpy(sampled.rgb), self.rgb_size)
            tensors = (torch.from_numpy(sampled.joints), torch.from_numpy(sampled.present))
            return _on_device(pixels, *tensors, labels, ids, device)
        choices = self._choices(where, epoch)
        joints, present = self._empty_skeletons(len(where))
        rgb = np.empty((len(where), 3, self.rgb_frames, self.rgb_size, self.rgb_size), np.float32)

        def fill(i: int) -> None:
            pixels = self._clip(where[i], choices[i], joints[i], present[i])
            _to_float(pixels, self.rgb_size, rgb[i])

        for_each(fill, len(where))
        skeleton = torch.from_numpy(joints).permute(0, 4, 1, 3, 2).contiguous()
        return Batch(torch.from_numpy(rgb), skeleton, torch.from_numpy(present), labels, ids)

    def read(self, positions: Sequence[int], epoch: int = 0) -> Sampled:
        """The clips at these positions as they lie in the shards, sampled and augmented."""
        size, count = self.shards.size, len(positions)
        rgb = np.empty((count, self.rgb_frames, size, size, 3), np.uint8)
        joints, present = self._empty_skeletons(count)
        choices = self._choices(positions, epoch)
        for i, (p, choice) in enumerate(zip(positions, choices, strict=True)):
            rgb[i] = self._clip(p, choice, joints[i], present[i])
        return Sampled(rgb, joints, present)

    def _choices(self, positions: Sequence[int], epoch: int) -> Sequence[Choice]:
        if self.augment is None:
            return [PLAIN] * len(positions)
        return draw(self.augment, self.seed, [self.clip_ids[p] for p in positions], epoch)

    def _empty_skeletons(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        shape = (count, self.skeleton_frames, PERSONS)
        return np.empty((*shape, JOINTS, 3), np.float32), np.empty(shape, bool)

    def _clip(
        self, position: int, choice: Choice, joints: np.ndarray, present: np.ndarray
    ) -> np.ndarray:
        """Fill joints [S, M, V, 3] and present [S, M]; pixels uint8 [T, H, W, 3], maybe a view."""
        clip = self.shards.clip(self.rows[position])
        if choice is not PLAIN:
            frames, steps = self._sample(clip, choice)
            joints[:], present[:] = augment_skeleton(
                clip.skeleton[steps], clip.present[steps], choice, width=self._width(position)
            )
            return augment_rgb(clip.rgb if frames is None else clip.rgb[frames], choice)
        known = self._samples.get(position)
        if known is None:
            known = self._samples[position] = self._sample(clip, PLAIN)
        frames, steps = known
        clip.skeleton.take(steps, axis=0, out=joints, mode="clip")
        clip.present.take(steps, axis=0, out=present, mode="clip")
        return clip.rgb if frames is None else clip.rgb.take(frames, axis=0)

    def _sample(self, clip: Clip, choice: Choice) -> tuple[np.ndarray | None, np.ndarray]:
        """Rows of the kept video frames (None = all in order) and of the skeleton frames."""
        span = window_seconds(clip)
        start, length = choice.start * span, choice.share * span
        frames = rgb_rows(clip, instants(start, length, self.rgb_frames))
        steps = skeleton_rows(clip, instants(start, length, self.skeleton_frames))
        whole = len(frames) == len(clip.rgb) and (np.diff(frames) == 1).all()
        return None if whole else frames, steps

    def _width(self, position: int) -> float | None:
        if self.shards.unit == "metres":
            return None
        return float(self.shards.meta.column("width")[self.rows[position]].as_py())


def _resize(rgb: Tensor, size: int) -> Tensor:
    """uint8 [B, T, H, W, 3] -> [B, T, 3, size, size]; on the CPU, so that it is the same always."""
    clips, frames, height, width, channels = rgb.shape
    flat = rgb.reshape(clips * frames, height, width, channels).permute(0, 3, 1, 2)
    if height != size:
        flat = functional.interpolate(flat, (size, size), mode="bilinear", antialias=True)
    return flat.reshape(clips, frames, channels, size, size)


def _to_float(pixels: np.ndarray, size: int, out: np.ndarray) -> None:
    """Pixels uint8 [T, H, W, 3] into `out`, float32 [3, T, size, size] in [0, 1]."""
    if pixels.shape[1] != size:
        writable = torch.from_numpy(np.array(pixels))  # torch warns of views of a shard
        pixels = _resize(writable[None], size)[0].permute(0, 2, 3, 1).numpy()
    out[:] = pixels.transpose(3, 0, 1, 2)
    np.divide(out, np.float32(255), out=out)


def _on_device(
    rgb: Tensor,
    joints: Tensor,
    present: Tensor,
    labels: Tensor,
    ids: tuple[str, ...],
    device: str,
) -> Batch:
    rgb, joints, present, labels = (
        t.pin_memory().to(device, non_blocking=True) for t in (rgb, joints, present, labels)
    )
    pixels = rgb.permute(0, 2, 1, 3, 4).to(torch.float32, memory_format=torch.contiguous_format)
    skeleton = joints.permute(0, 4, 1, 3, 2).contiguous()
    return Batch(pixels.div_(255.0), skeleton, present, labels, ids)
