"""Settings of the model: two backbones and what joins them."""

from dataclasses import dataclass
from typing import Literal

from components.config.base import Section, setting


@dataclass(frozen=True)
class AmrSection(Section):
    """The Attention Modality Reweighter; `docs/amr.md` has the equations."""

    weights: Literal["attention", "constant", "mean"] = setting(
        "attention",
        "how the two predictions are joined: weighed clip by clip, all alike, or evenly",
    )
    distil: float = setting(
        1.0, "factor of the loss by which the joint prediction teaches the heads", ge=0
    )
    prototype_scale: float = setting(
        12.0, "factor of the heads' cosines to shared prototypes; 0 = linear heads", ge=0
    )


@dataclass(frozen=True)
class ModelSection(Section):
    """Backbones, fusion, and the shape of the model's input."""

    rgb: str = setting("small_video", "video backbone (docs/models.md)")
    skeleton: str = setting("small_skeleton", "skeleton backbone (docs/models.md)")
    fusion: str = setting("amr", "how the two streams are joined (docs/models.md)")
    fusion_stages: tuple[int | tuple[int, int], ...] = setting(
        (),
        "after which stages the fusion attaches: -1 is the last of both, [i, j] names the video "
        "and the skeleton stage; empty = the fusion's own choice",
    )
    time_parts: int = setting(
        0, "parts of time that features are pooled into; 0 = the fusion's choice", ge=0
    )
    aux_heads: bool = setting(True, "deep supervision by per-modality heads")
    width: float = setting(1.0, "multiplies the channels of both backbones", gt=0)
    rgb_frames: int = setting(8, "video frames that the model sees", ge=1)
    rgb_size: int = setting(48, "side of those frames", unit="pixels", ge=16)
    skeleton_frames: int = setting(32, "skeleton frames that the model sees", ge=4)
    rgb_weights: str = setting("", "file with a published state dict for the video backbone")
    amr: AmrSection = AmrSection()
