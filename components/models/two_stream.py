"""The two-stream model: normalise, run both backbones stage by stage, fuse, classify.

`TwoStream` takes finished modules as flat keyword arguments; `build.py` makes them from names.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from components.batch import ModelOutput
from components.errors import UserError
from components.models.backbones.backbone import SkeletonBackbone, VideoBackbone
from components.models.normalize import SkeletonNormalize, VideoNormalize

Features = dict[str, Tensor]


class TwoStream(nn.Module):
    """Two staged backbones with a fusion after any of their stages and a merge at the end.

    joins: (stage of the video net, stage of the skeleton net), counted from 0, both increasing;
        after these stages the module of the same position in `between` sees both maps and replaces
        them.
    The other arguments are the fields of `fusions.Fusion`, except
    heads: per-modality classifiers (`heads.py`), or None.
    show_aux: report the heads' logits as `ModelOutput.aux`, on which training adds its loss.
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
        between: Sequence[nn.Module] = (),
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
        if len(joins) != len(between):
            raise UserError(f"{len(joins)} joins but {len(between)} modules; give one a join")
        self.between = nn.ModuleList(between)
        self.joins = tuple(joins)
        self.common = common
        self.heads = heads
        self.merge = merge
        self.dropout = nn.Dropout(dropout)
        self.show_aux = show_aux
        self.time_parts = time_parts
        self._penalties = tuple(penalties)

    def forward(self, rgb: Tensor, skeleton: Tensor, present: Tensor) -> ModelOutput:
        """One pass: see `ModelOutput`.

        rgb [B, 3, T, H, W] in [0, 1]; skeleton [B, 3, S, V, M] in metres; present bool [B, S, M].
        """
        video = self.rgb.begin(self.video_normalize(rgb))
        bodies, real = self.skeleton_normalize(*_without_empty_slots(skeleton, present))
        bodies = self.skeleton.begin(bodies)
        rgb_from = skeleton_from = 0
        last = (len(self.rgb.stages) - 1, len(self.skeleton.stages) - 1)
        for (rgb_to, skeleton_to), exchange in zip(
            [*self.joins, last], [*self.between, None], strict=True
        ):
            for stage in self.rgb.stages[rgb_from : rgb_to + 1]:
                video = stage(video)
            for stage in self.skeleton.stages[skeleton_from : skeleton_to + 1]:
                bodies = stage(bodies, real)
            rgb_from, skeleton_from = rgb_to + 1, skeleton_to + 1
            if exchange is not None:
                video, bodies = exchange(video, bodies, real)
        features = {
            "rgb": self.rgb.pool(video, self.time_parts),
            "skeleton": self.skeleton.pool(bodies, real, self.time_parts),
        }
        if self.common is not None:
            features = self.common(features)
        return self._classify(features)

    def _classify(self, features: Features) -> ModelOutput:
        dropped = {name: self.dropout(feature) for name, feature in features.items()}
        single: dict[str, Tensor | None] = {"rgb": None, "skeleton": None}
        if self.heads is not None:
            single = self.heads(dropped)
        logits, weight = self.merge(
            dropped["rgb"], dropped["skeleton"], single["rgb"], single["skeleton"]
        )
        weights = {} if weight is None else {"logits": weight}
        aux = {name: one for name, one in single.items() if one is not None and self.show_aux}
        return ModelOutput(logits, aux, weights, features)

    def stacked(self) -> list[nn.Parameter]:
        """Parameters that are fitted on held-out clips once the streams are trained; often none."""
        own = getattr(self.merge, "stacked", None)
        return [] if own is None else own()

    def regulariser(self, output: ModelOutput) -> Tensor:
        """Extra training loss of the fusion (scalar), added to the loss of the logits [B, K]."""
        total = output.logits.new_zeros((), dtype=torch.float32)
        for penalty in self._penalties:
            total = total + penalty(output)
        return total


def _without_empty_slots(skeleton: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Drop the last slots for persons that nobody in the batch fills.

    Absent persons contribute nothing, so the result is the same at half the work for single-person
    clips. Not under compile and export (shapes would depend on data), nor on GPUs (it would wait).
    """
    if torch.compiler.is_compiling() or present.device.type != "cpu":
        return skeleton, present
    slots = present.flatten(0, 1).any(0).tolist()
    filled = max((i + 1 for i, used in enumerate(slots) if used), default=1)
    return skeleton[..., :filled], present[..., :filled]
