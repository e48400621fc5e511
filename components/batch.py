"""What flows from the shards to the models: one batch of clips, and the legend of all shapes.

Shape legend, used in every suffix and docstring of the project:

    B  clips in a batch           C  channels
    T  video frames               S  skeleton frames (S and T are sampled from the same clip)
    H  rows of pixels             W  columns of pixels
    V  joints (25, Kinect v2)     M  persons (2)
    K  classes

Units: video in [0, 1]; joints in the source's own unit, which is metres for Kinect.
"""

from typing import NamedTuple

import torch
from torch import Tensor

JOINTS = 25
PERSONS = 2
# Kinect v2's skeleton: (joint, its neighbour one step nearer to the spine at the shoulders, 20)
BONES = (
    (0, 1), (1, 20), (2, 20), (3, 2), (4, 20), (5, 4), (6, 5), (7, 6), (8, 20), (9, 8), (10, 9),
    (11, 10), (12, 0), (13, 12), (14, 13), (15, 14), (16, 0), (17, 16), (18, 17), (19, 18),
    (21, 22), (22, 7), (23, 24), (24, 11),
)  # fmt: skip


class Batch(NamedTuple):
    """Clips ready for a model or an attack.

    rgb:      float32 [B, 3, T, H, W] in [0, 1]
    skeleton: float32 [B, 3, S, V, M], raw joints (metres); whatever lies at an absent person is 0
    present:  bool    [B, S, M], True where that person was tracked in that frame
    label:    int64   [B], index into the run's list of classes, 0..K-1
    clip_id:  B names, the source of every per-clip seed
    """

    rgb: Tensor
    skeleton: Tensor
    present: Tensor
    label: Tensor
    clip_id: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of clips B."""
        return self.label.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same clips on another device."""
        rgb, skeleton, present, label = (
            t.to(device, non_blocking=non_blocking)
            for t in (self.rgb, self.skeleton, self.present, self.label)
        )
        return Batch(rgb, skeleton, present, label, self.clip_id)

    def select(self, index: Tensor) -> "Batch":
        """The clips at `index`: int64 positions [N] or a bool mask [B]."""
        if index.dtype == torch.bool:
            index = index.nonzero().flatten()
        return Batch(
            self.rgb[index],
            self.skeleton[index],
            self.present[index],
            self.label[index],
            tuple(self.clip_id[i] for i in index.tolist()),
        )


class ModelOutput(NamedTuple):
    """What every two-stream model of this project returns from `forward(rgb, skeleton, present)`.

    logits:   float [B, K]; what accuracy and attacks use
    aux:      per-modality logits [B, K] by modality ("rgb", "skeleton"); empty without heads
    weights:  modality weights by place ("stage2", "logits"), each [B, 2] or [B, G, 2],
              modality order (rgb, skeleton), summing to 1 over the last axis; empty if the
              fusion has none
    features: pooled features [B, C] by modality, just before the classifier
    """

    logits: Tensor
    aux: dict[str, Tensor]
    weights: dict[str, Tensor]
    features: dict[str, Tensor]


def logits_of(output: "Tensor | ModelOutput") -> Tensor:
    """The logits [B, K] of a model of this project or of a plain one that returns a tensor."""
    return output if isinstance(output, Tensor) else output.logits
