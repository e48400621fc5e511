"""Settings of the model: two backbones and what joins them."""

from typing import Literal

from pydantic import Field

from components.config.base import Section

FusionName = Literal["late", "concat", "mmtm", "minsim", "exfmem", "minsim_exfmem", "fim", "amr"]
RgbName = Literal["small_video", "r3d_18", "mc3_18", "r2plus1d_18", "inflated_resnet50"]
SkeletonName = Literal["small_skeleton", "hcn", "stgcn", "ctrgcn"]


class AmrSection(Section):
    """The Attention Modality Reweighter; `docs/amr.md` has the equations."""

    heads: int = Field(4, ge=1)
    width: int = Field(32, ge=4)
    temperature: float = Field(1.0, gt=0)


class ModelSection(Section):
    """Backbones, fusion, and the shape of the model's input."""

    rgb: RgbName = "small_video"
    skeleton: SkeletonName = "small_skeleton"
    fusion: FusionName = "amr"
    fusion_stages: tuple[int, ...] = Field(
        (), description="after which stages the fusion attaches; empty = the fusion's own choice"
    )
    width: float = Field(1.0, gt=0, description="multiplies the channels of both backbones")
    dropout: float = Field(0.3, ge=0, lt=1)
    rgb_frames: int = Field(8, ge=1)
    rgb_size: int = Field(48, ge=16)
    skeleton_frames: int = Field(32, ge=4)
    rgb_weights: str = Field("", description="file with a published state dict for the video net")
    amr: AmrSection = AmrSection()
