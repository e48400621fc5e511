"""The two kinds of backbones by name: one file and one line here adds another.

A builder of a video backbone is called with the keyword `width` (multiplies the channels), one of a
skeleton backbone with `width` and `frames` (S, for networks whose layers depend on the length of
the clip). What they return is described in `backbone.py`.
"""

from collections.abc import Callable

from components.models.backbones.backbone import Backbone, SkeletonBackbone, VideoBackbone
from components.models.backbones.ctrgcn import CTRGCN
from components.models.backbones.hcn import HCN
from components.models.backbones.inflated import InflatedResNet50
from components.models.backbones.pretrained import load_backbone
from components.models.backbones.small import SmallSkeleton, SmallVideo
from components.models.backbones.stgcn import STGCN
from components.models.backbones.video_resnet import mc3_18, r2plus1d_18, r3d_18

VIDEO_BACKBONES: dict[str, Callable[..., VideoBackbone]] = {
    "small_video": SmallVideo,
    "r3d_18": r3d_18,
    "mc3_18": mc3_18,
    "r2plus1d_18": r2plus1d_18,
    "inflated_resnet50": InflatedResNet50,
}
SKELETON_BACKBONES: dict[str, Callable[..., SkeletonBackbone]] = {
    "small_skeleton": lambda *, width, frames: SmallSkeleton(width=width),
    "hcn": HCN,
    "stgcn": lambda *, width, frames: STGCN(width=width),
    "ctrgcn": lambda *, width, frames: CTRGCN(width=width),
}

__all__ = [
    "SKELETON_BACKBONES",
    "VIDEO_BACKBONES",
    "Backbone",
    "SkeletonBackbone",
    "VideoBackbone",
    "load_backbone",
]
