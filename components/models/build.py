"""From names and numbers to a model: the one place where settings meet constructors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from components.models.amr import StageReweighter
from components.models.merge import ConcatMerge, LateMerge
from components.models.mmtm import MMTM
from components.models.small import SmallSkeleton, SmallVideo
from components.models.two_stream import TwoStream

RGB: dict[str, Callable[..., nn.Module]] = {"small_video": SmallVideo}
SKELETON: dict[str, Callable[..., nn.Module]] = {"small_skeleton": SmallSkeleton}


def build_model(config: Mapping[str, Any]) -> TwoStream:
    """The `model` section of params.yaml as a plain dict plus `num_classes` -> a model."""
    rgb = RGB[config["rgb"]](width=config["width"])
    skeleton = SKELETON[config["skeleton"]](width=config["width"])
    fusion = config["fusion"]
    num_classes = config["num_classes"]
    joins = _joins(config["fusion_stages"] or (-1,), len(rgb.stages), len(skeleton.stages))
    fusions: list[nn.Module] = []
    if fusion == "mmtm":
        fusions = [MMTM(rgb.channels[i], skeleton.channels[j]) for i, j in joins]
    elif fusion == "amr":
        amr = config["amr"]
        fusions = [
            StageReweighter(
                rgb.channels[i],
                skeleton.channels[j],
                heads=amr["heads"],
                width=amr["width"],
                temperature=amr["temperature"],
            )
            for i, j in joins
        ]
    else:
        joins = []
    merge: nn.Module
    if fusion == "concat":
        merge = ConcatMerge(rgb.features, skeleton.features, num_classes)
    else:
        merge = LateMerge()
    heads = nn.ModuleDict(
        {
            "rgb": nn.Linear(rgb.features, num_classes),
            "skeleton": nn.Linear(skeleton.features, num_classes),
        }
    )
    return TwoStream(
        rgb=rgb,
        skeleton=skeleton,
        merge=merge,
        heads=heads,
        joins=joins,
        fusions=fusions,
        dropout=config["dropout"],
    )


def _joins(
    stages: Sequence[int | Sequence[int]], rgb_stages: int, skeleton_stages: int
) -> list[tuple[int, int]]:
    joins = []
    for stage in stages:
        i, j = (stage, stage) if isinstance(stage, int) else stage
        joins.append((i % rgb_stages, j % skeleton_stages))
    return sorted(joins)
