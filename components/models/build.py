"""From names and numbers to a model: the one place where settings meet constructors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from components.models.backbone import SkeletonBackbone, VideoBackbone
from components.models.ctrgcn import CTRGCN
from components.models.hcn import HCN
from components.models.normalize import SkeletonNormalize
from components.models.parts import FUSIONS, OWN_STAGES, OWN_TIME_PARTS
from components.models.pretrained import load_backbone
from components.models.small import SmallSkeleton, SmallVideo
from components.models.stgcn import STGCN
from components.models.two_stream import TwoStream
from components.models.video_inflated import InflatedResNet50
from components.models.video_resnet import mc3_18, r2plus1d_18, r3d_18

VIDEO: dict[str, Callable[..., VideoBackbone]] = {
    "small_video": SmallVideo,
    "r3d_18": r3d_18,
    "mc3_18": mc3_18,
    "r2plus1d_18": r2plus1d_18,
    "inflated_resnet50": InflatedResNet50,
}
SKELETON: dict[str, Callable[..., SkeletonBackbone]] = {
    "small_skeleton": lambda *, width, frames: SmallSkeleton(width=width),
    "hcn": lambda *, width, frames: HCN(width=width, frames=frames),
    "stgcn": lambda *, width, frames: STGCN(width=width),
    "ctrgcn": lambda *, width, frames: CTRGCN(width=width),
}
SHAPE_KEYS = ("rgb_frames", "rgb_size")  # of the settings; the networks take any such shape


def build_model(config: Mapping[str, Any]) -> TwoStream:
    """The `model` section of params.yaml as a plain dict plus `num_classes` -> a model.

    A key that is left out has the default of `two_stream`. With `rgb_weights` set the file is read
    now; whoever loads a checkpoint passes it empty. Raises ValueError for what does not fit.
    """
    return two_stream(**{k: v for k, v in config.items() if k not in SHAPE_KEYS})


def two_stream(
    *,
    num_classes: int,
    rgb: str = "small_video",
    skeleton: str = "small_skeleton",
    fusion: str = "amr",
    fusion_stages: Sequence[int | Sequence[int]] = (),
    time_parts: int = 0,
    aux_heads: bool = True,
    width: float = 1.0,
    dropout: float = 0.3,
    skeleton_frames: int = 32,
    centre: str = "body",
    view_rotation: bool = False,
    rgb_weights: str = "",
    amr: Mapping[str, Any] | None = None,
) -> TwoStream:
    """A two-stream model from names.

    fusion_stages: after which stages the fusion attaches, as Python indices: -1 is the last stage
        of both backbones, 0 the first; a pair [i, j] names the video and the skeleton stage.
        Empty is the fusion's own choice: (-2, -1) for mmtm and fim, (-1,) for amr. The other
        fusions join behind the last stage, whatever is said here.
    time_parts: into how many consecutive parts of time each stream's last map is pooled, so that
        what comes first and what comes later are told apart; a map with less time left repeats.
        0 is the fusion's own choice: 2 for amr, 1 (the mean over the whole clip) for the others.
    aux_heads: per-modality classifiers whose loss training adds (deep supervision).
    amr: keywords of `parts.amr_parts`.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: a recogniser needs at least 2 classes")
    parts_of = _named(FUSIONS, fusion, "fusion")
    video = _named(VIDEO, rgb, "rgb")(width=width)
    bodies = _named(SKELETON, skeleton, "skeleton")(width=width, frames=skeleton_frames)
    if rgb_weights:
        load_backbone(video, rgb_weights)
    joins = []
    if fusion in OWN_STAGES:
        stages = fusion_stages or OWN_STAGES[fusion]
        joins = resolve_joins(stages, len(video.stages), len(bodies.stages))
    if time_parts < 0:
        raise ValueError(f"model.time_parts={time_parts}: 1 or more, or 0 for the fusion's choice")
    time_parts = time_parts or OWN_TIME_PARTS.get(fusion, 1)
    parts = parts_of(
        [(video.channels[i], bodies.channels[j]) for i, j in joins],
        (time_parts * video.features, time_parts * bodies.features),
        num_classes,
        **(amr or {} if fusion == "amr" else {}),
        **({"time_parts": time_parts} if fusion == "amr" else {}),
    )
    heads = None
    if aux_heads or parts.needs_heads:
        heads = parts.heads(*parts.features, num_classes)
    return TwoStream(
        rgb=video,
        skeleton=bodies,
        merge=parts.merge,
        heads=heads,
        common=parts.common,
        joins=joins if parts.fusions else (),
        fusions=parts.fusions,
        penalties=parts.penalties,
        show_aux=aux_heads,
        dropout=dropout if parts.dropout is None else parts.dropout,
        time_parts=time_parts,
        skeleton_normalize=SkeletonNormalize(
            centre=centre, rotate=view_rotation, motion=bodies.motion
        ),
    )


def resolve_joins(
    stages: Sequence[int | Sequence[int]], rgb_stages: int, skeleton_stages: int
) -> list[tuple[int, int]]:
    """Python indices or pairs of them -> increasing pairs counted from 0; ValueError if outside."""
    joins = []
    for stage in stages:
        pair = (stage, stage) if isinstance(stage, int) else tuple(stage)
        if len(pair) != 2:
            raise ValueError(f"model.fusion_stages: {stage!r} is neither a stage nor a pair")
        found = []
        for index, count, name in zip(
            pair, (rgb_stages, skeleton_stages), ("video", "skeleton"), strict=True
        ):
            if not -count <= index < count:
                raise ValueError(
                    f"model.fusion_stages: {stage!r} is outside the {count} {name} stages"
                )
            found.append(index % count)
        joins.append((found[0], found[1]))
    return sorted(joins)


def _named(table: Mapping[str, Any], name: str, key: str) -> Any:
    if name not in table:
        raise ValueError(f"model.{key}={name!r}; there are: {', '.join(table)}")
    return table[name]
