"""The two-stream model: normalise, run both backbones stage by stage, fuse, classify.

`TwoStream` takes finished parts as flat keyword arguments; `build.py` makes them from names.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from components.batch import ModelOutput
from components.models.backbone import SkeletonBackbone, VideoBackbone
from components.models.normalize import SkeletonNormalize, VideoNormalize

Features = dict[str, Tensor]


class TwoStream(nn.Module):
    """Two staged backbones with a fusion after any of their stages and a merge at the end.

    joins: (stage of the video net, stage of the skeleton net), counted from 0, both increasing;
        after these stages the fusion of the same position sees both maps and replaces them.
    fusions: one module a join: (rgb map, skeleton map, real [B, M]) -> (rgb, skeleton, weights).
    merge: see `merge.py`.
    common: optional module that brings both feature vectors to one width (features -> features).
    heads: per-modality classifiers (`heads.py`), or None.
    show_aux: report the heads' logits as `ModelOutput.aux`, on which training adds its loss.
    time_parts: consecutive parts of time whose means, side by side, are a stream's features.
    penalties: functions of the output that `regulariser` adds up.
    """

    def __init__(
        self,
        *,
        rgb: VideoBackbone,
        skeleton: SkeletonBackbone,
        merge: nn.Module,
        heads: nn.Module | None = None,
        common: nn.Module | None = None,
        joins: Sequence[tuple[int, int]] = (),
        fusions: Sequence[nn.Module] = (),
        penalties: Sequence[Callable[[ModelOutput], Tensor]] = (),
        show_aux: bool = True,
        dropout: float = 0.0,
        time_parts: int = 1,
        video_normalize: nn.Module | None = None,
        skeleton_normalize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.video_normalize = video_normalize or VideoNormalize()
        self.skeleton_normalize = skeleton_normalize or SkeletonNormalize()
        self.rgb: VideoBackbone = rgb
        self.skeleton: SkeletonBackbone = skeleton
        self.fusions = nn.ModuleList(fusions)
        self.joins = _checked(joins, len(fusions), len(rgb.stages), len(skeleton.stages))
        self.common = common
        self.heads = heads
        self.merge = merge
        self.dropout = nn.Dropout(dropout)
        self.show_aux = show_aux
        self.time_parts = time_parts
        self._penalties = tuple(penalties)

    def forward(self, rgb: Tensor, skeleton: Tensor, present: Tensor) -> ModelOutput:
        """rgb [B, 3, T, H, W] in [0, 1], skeleton [B, 3, S, V, M], present bool [B, S, M]."""
        video = self.rgb.begin(self.video_normalize(rgb))
        bodies, real = self.skeleton_normalize(*_without_empty_places(skeleton, present))
        bodies = self.skeleton.begin(bodies)
        weights: dict[str, Tensor] = {}
        rgb_at = skeleton_at = 0
        last = (len(self.rgb.stages) - 1, len(self.skeleton.stages) - 1)
        for (rgb_to, skeleton_to), fusion in zip(
            [*self.joins, last], [*self.fusions, None], strict=True
        ):
            for stage in self.rgb.stages[rgb_at : rgb_to + 1]:
                video = stage(video)
            for stage in self.skeleton.stages[skeleton_at : skeleton_to + 1]:
                bodies = stage(bodies, real)
            rgb_at, skeleton_at = rgb_to + 1, skeleton_to + 1
            if fusion is not None:
                video, bodies, weight = fusion(video, bodies, real)
                if weight is not None:
                    weights[f"stage{rgb_to + 1}"] = weight
        features = {
            "rgb": self.rgb.pool(video, self.time_parts),
            "skeleton": self.skeleton.pool(bodies, real, self.time_parts),
        }
        if self.common is not None:
            features = self.common(features)
        return self._classify(features, weights)

    def _classify(self, features: Features, weights: dict[str, Tensor]) -> ModelOutput:
        dropped = {name: self.dropout(feature) for name, feature in features.items()}
        single: dict[str, Tensor | None] = {"rgb": None, "skeleton": None}
        if self.heads is not None:
            single = self.heads(dropped)
        logits, weight = self.merge(
            dropped["rgb"], dropped["skeleton"], single["rgb"], single["skeleton"]
        )
        if weight is not None:
            weights["logits"] = weight
        aux = {name: one for name, one in single.items() if one is not None and self.show_aux}
        return ModelOutput(logits, aux, weights, features)

    def regulariser(self, output: ModelOutput) -> Tensor:
        """Extra training loss of the fusion (scalar), to be added to the classification loss."""
        total = output.logits.new_zeros((), dtype=torch.float32)
        for penalty in self._penalties:
            total = total + penalty(output)
        return total


def _without_empty_places(skeleton: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Drop the last person places while nobody in the batch fills them.

    Absent persons contribute nothing, so the result is the same at half the work for single-person
    clips. Not under compile and export (shapes would depend on data), nor on GPUs (it would wait).
    """
    if torch.compiler.is_compiling() or present.device.type != "cpu":
        return skeleton, present
    places = present.flatten(0, 1).any(0).tolist()
    filled = max((i + 1 for i, used in enumerate(places) if used), default=1)
    return skeleton[..., :filled], present[..., :filled]


def _checked(
    joins: Sequence[tuple[int, int]], fusions: int, rgb_stages: int, skeleton_stages: int
) -> tuple[tuple[int, int], ...]:
    if len(joins) != fusions:
        raise ValueError(f"{len(joins)} joins but {fusions} fusion modules; give one for each join")
    for i, (rgb, skeleton) in enumerate(joins):
        inside = 0 <= rgb < rgb_stages and 0 <= skeleton < skeleton_stages
        later = i == 0 or (rgb > joins[i - 1][0] and skeleton > joins[i - 1][1])
        if not (inside and later):
            raise ValueError(
                f"join {(rgb, skeleton)}: stages count from 0 to {rgb_stages - 1} (video) and "
                f"{skeleton_stages - 1} (skeleton) and both must grow from join to join"
            )
    return tuple((int(rgb), int(skeleton)) for rgb, skeleton in joins)
