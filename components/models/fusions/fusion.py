"""What a fusion is: a function from two backbones' shapes to the modules that join them.

    def my_fusion(streams: Streams, *, setting: float = 1.0) -> Fusion: ...

`streams` gives the sizes and resolves `model.fusion_stages` and `model.time_parts`, with the
fusion's own defaults where the user leaves them open. Keyword arguments are the fusion's own
settings: the mapping `model.<name of the fusion>`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from components.batch import ModelOutput
from components.errors import UserError
from components.models.heads import LinearHeads

Pair = tuple[int, int]  # (video, skeleton)


class Fusion(NamedTuple):
    """The modules of a fusion, ready for `TwoStream`.

    merge: (features [B, C_rgb], features [B, C_skeleton], their logits [B, K] each, or None without
        heads) -> (logits [B, K], modality weights [B, 2] or None)
    features: lengths of the two feature vectors that the merge and the heads get
    joins: after which (video stage, skeleton stage), counted from 0, maps are exchanged
    between: one module a join: (video map, skeleton map, real [B, M]) -> the two maps, same shapes
    common: module between pooling and heads: features by modality -> features by modality
    penalties: functions ModelOutput -> scalar, added to the training loss
    needs_heads: whether the merge reads the per-modality logits
    heads: (features of the two modalities, classes) -> the per-modality classifiers
    dropout: of the features, in place of the model's; None = the model's
    time_parts: parts of time into which features are pooled
    """

    merge: nn.Module
    features: Pair
    joins: Sequence[Pair] = ()
    between: Sequence[nn.Module] = ()
    common: nn.Module | None = None
    penalties: Sequence[Callable[[ModelOutput], Tensor]] = ()
    needs_heads: bool = True
    heads: Callable[[int, int, int], nn.Module] = LinearHeads
    dropout: float | None = None
    time_parts: int = 1


@dataclass(frozen=True)
class Streams:
    """Sizes of the two backbones and what the user set about where to fuse.

    rgb_channels, skeleton_channels: channels of the map after each stage
    pooled: lengths of the two pooled features, for one part of time
    stages: `model.fusion_stages`; empty = the fusion's choice
    parts: `model.time_parts`; 0 = the fusion's choice
    """

    rgb_channels: tuple[int, ...]
    skeleton_channels: tuple[int, ...]
    pooled: Pair
    num_classes: int
    stages: Sequence[int | Sequence[int]] = ()
    parts: int = 0

    def joins(self, default: Sequence[int]) -> list[Pair]:
        """The user's stages, else `default`, as pairs counted from 0; UserError if outside."""
        counts = (len(self.rgb_channels), len(self.skeleton_channels))
        return resolve_joins(self.stages or default, *counts)

    def channels(self, join: Pair) -> Pair:
        """Channels of the two maps after these stages."""
        return self.rgb_channels[join[0]], self.skeleton_channels[join[1]]

    def time_parts(self, default: int = 1) -> int:
        """The user's number of parts of time, else `default`."""
        return self.parts or default

    def features(self, default_parts: int = 1) -> Pair:
        """Lengths of the two feature vectors, all parts of time side by side."""
        parts = self.time_parts(default_parts)
        return parts * self.pooled[0], parts * self.pooled[1]


def resolve_joins(
    stages: Sequence[int | Sequence[int]], rgb_stages: int, skeleton_stages: int
) -> list[Pair]:
    """Python indices or pairs of them -> pairs counted from 0, in order; UserError if outside."""
    counts = {"video": rgb_stages, "skeleton": skeleton_stages}
    joins = []
    for stage in stages:
        pair = (stage, stage) if isinstance(stage, int) else tuple(stage)
        if len(pair) != 2:
            raise UserError(
                f"model.fusion_stages: {stage!r} is neither a stage nor a pair; give e.g. -1 or "
                "[2, 1]"
            )
        for index, (name, count) in zip(pair, counts.items(), strict=True):
            if not -count <= index < count:
                raise UserError(
                    f"model.fusion_stages: {stage!r} is outside the {count} {name} stages; give "
                    f"{-count} to {count - 1}"
                )
        joins.append((pair[0] % rgb_stages, pair[1] % skeleton_stages))
    joins.sort()
    for before, after in zip(joins, joins[1:], strict=False):
        if after[0] <= before[0] or after[1] <= before[1]:
            raise UserError(
                f"model.fusion_stages: after the stages {before} come {after} (counted from 0); "
                "both must grow from join to join"
            )
    return joins
