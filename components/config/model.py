"""Settings of the model: two backbones and what joins them."""

from typing import Literal

from pydantic import Field

from components.config.base import Section


class AmrSection(Section):
    """The Attention Modality Reweighter; `docs/amr.md` has the equations."""

    weights: Literal["attention", "mean"] = Field(
        "attention", description="how the two predictions are joined: weighed clip by clip, or not"
    )
    temperature: float = Field(1.0, gt=0, description="of the softmax over the modalities")
    floor: float = Field(0.4, ge=0, lt=0.5, description="least weight of a modality's prediction")
    doubt: float = Field(
        0.0, ge=0, lt=1, description="assumed probability that a head is wrong; bounds its veto"
    )
    video_bias: float = Field(
        0.0, gt=-0.5, lt=0.5, description="added to the video's weight outside training"
    )
    distil: float = Field(
        1.0, ge=0, description="factor of the loss by which the joint prediction teaches the heads"
    )
    prototype_scale: float = Field(
        12.0,
        ge=0,
        description="factor of the heads' cosines to shared prototypes; 0 = linear heads",
    )


class ModelSection(Section):
    """Backbones, fusion, and the shape of the model's input."""

    rgb: str = "small_video"
    skeleton: str = "small_skeleton"
    fusion: str = "amr"
    fusion_stages: tuple[int | tuple[int, int], ...] = Field(
        (),
        description="after which stages the fusion attaches: -1 is the last of both, [i, j] names "
        "the video and the skeleton stage; empty = the fusion's own choice",
    )
    time_parts: int = Field(
        0, ge=0, description="parts of time that features are pooled into; 0 = the fusion's choice"
    )
    aux_heads: bool = Field(True, description="deep supervision by per-modality heads")
    width: float = Field(1.0, gt=0, description="multiplies the channels of both backbones")
    dropout: float = Field(
        0.3, ge=0, lt=1, description="of the features before the classifiers; AMR has its own"
    )
    rgb_frames: int = Field(8, ge=1)
    rgb_size: int = Field(48, ge=16)
    skeleton_frames: int = Field(32, ge=4)
    centre: Literal["body", "spine"] = Field(
        "body", description="origin: mean of all joints or one joint, in the first valid frame"
    )
    view_rotation: bool = Field(False, description="turn skeletons until the shoulders lie along x")
    rgb_weights: str = Field("", description="file with a published state dict for the video net")
    amr: AmrSection = AmrSection()
