"""Settings of the model: two backbones and what joins them."""

from typing import Literal

from pydantic import Field

from components.config.base import Section

FusionName = Literal["late", "concat", "mmtm", "minsim", "exfmem", "minsim_exfmem", "fim", "amr"]
RgbName = Literal["small_video", "r3d_18", "mc3_18", "r2plus1d_18", "inflated_resnet50"]
SkeletonName = Literal["small_skeleton", "hcn", "stgcn", "ctrgcn"]


class AmrSection(Section):
    """The Attention Modality Reweighter; `docs/amr.md` has the equations."""

    heads: int = Field(4, ge=1, description="channel groups with weights of their own")
    width: int = Field(8, ge=1, description="length of a modality's token")
    temperature: float = Field(1.0, gt=0, description="of every softmax over the modalities")
    floor: float = Field(0.35, ge=0, lt=0.5, description="least weight of a modality at a stage")
    stage_weights: bool = Field(False, description="modality weights at the stages")
    stage_gates: bool = Field(False, description="channel gates at the stages besides")
    logits: Literal["attention", "mean"] = Field(
        "attention", description="how the two modalities' predictions are joined"
    )
    evidence: Literal["logits", "features", "both"] = Field(
        "logits", description="what the weights of the predictions are computed from"
    )
    per_class: bool = Field(False, description="weights of the predictions class by class")
    logit_floor: float = Field(0.4, ge=0, lt=0.5, description="least weight of a prediction")
    doubt: float = Field(
        0.0, ge=0, lt=1, description="probability that a head is wrong; bounds its say"
    )
    detach: bool = Field(False, description="weights from evidence cut off the graph")
    stream_drop: float = Field(
        0.0, ge=0, lt=1, description="share of training clips decided by one modality at random"
    )
    balance: float = Field(0.0, ge=0, description="loss on unequal mean weights")
    share: float = Field(
        0.5, gt=0, lt=1, description="the video's mean weight in use; 1/2 in training"
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="of the features before AMR's heads, for model.dropout"
    )
    distil: float = Field(1.0, ge=0, description="how much the joint prediction teaches the heads")
    prototype_scale: float = Field(
        12.0,
        ge=0,
        description="heads: cosines to prototypes that both share, times this; 0 = linear",
    )


class ModelSection(Section):
    """Backbones, fusion, and the shape of the model's input."""

    rgb: RgbName = "small_video"
    skeleton: SkeletonName = "small_skeleton"
    fusion: FusionName = "amr"
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
