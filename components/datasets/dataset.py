"""Rows of the shards as batches for models and attacks."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from components.batch import JOINTS, PERSONS, Batch
from components.config.train import AugmentSection
from components.datasets.augment import PLAIN, augment_rgb, augment_skeleton, draw
from components.datasets.sampling import instants, rgb_rows, skeleton_rows, window_seconds
from components.shards import ShardSet


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
        augment: AugmentSection | None = None,
        seed: int = 0,
    ) -> None:
        self.shards = shards
        self.rows = np.asarray(rows, dtype=np.int64)
        self.classes = list(classes)
        self.rgb_frames = rgb_frames
        self.rgb_size = rgb_size
        self.skeleton_frames = skeleton_frames
        self.augment = augment
        self.seed = seed
        actions = shards.meta.column("action").to_numpy()[self.rows]
        place = {action: index for index, action in enumerate(self.classes)}
        unknown = sorted(set(actions.tolist()) - place.keys())
        if unknown:
            raise ValueError(
                f"clips of action {unknown[0]} are in the split but not among the run's "
                f"{len(self.classes)} classes; were the shards rebuilt since the model was trained?"
            )
        self.labels = np.array([place[a] for a in actions.tolist()], dtype=np.int64)
        self.clip_ids = [shards.clip_ids[row] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(
        self, positions: Sequence[int] | np.ndarray, epoch: int = 0, device: str = "cpu"
    ) -> Batch:
        """The clips at these positions of the split, 0 <= position < len.

        Pixels travel to `device` as bytes and become numbers there, the same on any device.
        """
        where = [int(p) for p in positions]
        ids = [self.clip_ids[p] for p in where]
        choices = [PLAIN] * len(where)
        if self.augment is not None:
            choices = draw(self.augment, self.seed, ids, epoch)
        size = self.shards.size
        rgb = np.empty((len(where), self.rgb_frames, size, size, 3), np.uint8)
        joints = np.empty((len(where), self.skeleton_frames, PERSONS, JOINTS, 3), np.float32)
        present = np.empty((len(where), self.skeleton_frames, PERSONS), bool)
        for i, (p, choice) in enumerate(zip(where, choices, strict=True)):
            clip = self.shards.clip(int(self.rows[p]))
            span = window_seconds(clip)
            start, length = choice.start * span, choice.share * span
            frames = rgb_rows(clip, instants(start, length, self.rgb_frames))
            steps = skeleton_rows(clip, instants(start, length, self.skeleton_frames))
            if choice is PLAIN:
                np.take(clip.rgb, frames, axis=0, out=rgb[i], mode="clip")
                joints[i], present[i] = clip.skeleton[steps], clip.present[steps]
                continue
            rgb[i] = augment_rgb(clip.rgb[frames], choice)
            joints[i], present[i] = augment_skeleton(
                clip.skeleton[steps], clip.present[steps], choice, width=self._width(int(p))
            )
        pixels = _resize(torch.from_numpy(rgb), self.rgb_size)
        tensors = (pixels, torch.from_numpy(joints), torch.from_numpy(present))
        labels = torch.from_numpy(self.labels[where])
        return _finish(*tensors, labels, tuple(ids), device)

    def _width(self, position: int) -> float | None:
        if self.shards.unit == "metres":
            return None
        return float(self.shards.meta.column("width")[int(self.rows[position])].as_py())


def _resize(rgb: Tensor, size: int) -> Tensor:
    """uint8 [B, T, H, W, 3] -> [B, T, 3, size, size]; on the CPU, so that it is the same always."""
    clips, frames, height, width, channels = rgb.shape
    flat = rgb.reshape(clips * frames, height, width, channels).permute(0, 3, 1, 2)
    if height != size:
        flat = functional.interpolate(flat, (size, size), mode="bilinear", antialias=True)
    return flat.reshape(clips, frames, channels, size, size)


def _finish(
    rgb: Tensor,
    joints: Tensor,
    present: Tensor,
    labels: Tensor,
    ids: tuple[str, ...],
    device: str,
) -> Batch:
    if device != "cpu":
        rgb, joints, present, labels = (
            t.pin_memory().to(device, non_blocking=True) for t in (rgb, joints, present, labels)
        )
    pixels = rgb.permute(0, 2, 1, 3, 4).to(torch.float32, memory_format=torch.contiguous_format)
    skeleton = joints.permute(0, 4, 1, 3, 2).contiguous()
    return Batch(pixels.div_(255.0), skeleton, present, labels, ids)
