"""From names and numbers to a model: the one place where settings meet constructors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from components.batch import ModelOutput
from components.models.amr import StageReweighter
from components.models.backbone import SkeletonBackbone, VideoBackbone
from components.models.ctrgcn import CTRGCN
from components.models.fim import FIM
from components.models.hcn import HCN
from components.models.memory import CommonSpace, FeatureMemory, MemoryMerge, similarity
from components.models.merge import ConcatMerge, LateMerge
from components.models.mmtm import MMTM
from components.models.normalize import SkeletonNormalize
from components.models.pretrained import load_backbone
from components.models.reweight import LogitReweighter, imbalance
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
FUSIONS = ("late", "concat", "mmtm", "minsim", "exfmem", "minsim_exfmem", "fim", "amr")
STAGED = ("mmtm", "fim", "amr")  # fusions that attach between stages
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
    aux_heads: per-modality classifiers whose loss training adds (deep supervision).
    amr: keywords of `amr_parts`.
    """
    video = _named(VIDEO, rgb, "rgb")(width=width)
    bodies = _named(SKELETON, skeleton, "skeleton")(width=width, frames=skeleton_frames)
    if fusion not in FUSIONS:
        raise ValueError(f"model.fusion={fusion!r}; there are: {', '.join(FUSIONS)}")
    if rgb_weights:
        load_backbone(video, rgb_weights)
    stages = fusion_stages or ((-1,) if fusion == "amr" else (-2, -1))
    joins = resolve_joins(stages, len(video.stages), len(bodies.stages)) if fusion in STAGED else []
    pairs = [(video.channels[i], bodies.channels[j]) for i, j in joins]

    sizes = (video.features, bodies.features)
    common: nn.Module | None = None
    if fusion in ("minsim", "exfmem", "minsim_exfmem"):
        sizes = (min(sizes), min(sizes))
        common = CommonSpace(video.features, bodies.features, sizes[0])
    penalties: list[Callable[[ModelOutput], Tensor]] = []
    if fusion.startswith("minsim"):
        penalties.append(similarity)
    merge: nn.Module = LateMerge()
    fusions: Iterable[nn.Module] = ()
    if fusion in ("concat", "minsim"):
        merge = ConcatMerge(*sizes, num_classes)
    elif fusion.endswith("exfmem"):
        merge = MemoryMerge(
            FeatureMemory(sizes[0]), FeatureMemory(sizes[1]), ConcatMerge(*sizes, num_classes)
        )
        penalties.append(merge.loss)
    elif fusion == "mmtm":
        fusions = [MMTM(*pair) for pair in pairs]
    elif fusion == "fim":
        fusions = [FIM(*pair) for pair in pairs]
    elif fusion == "amr":
        fusions, merge, balance = amr_parts(pairs, sizes, num_classes, **(amr or {}))
        joins = joins if fusions else []
        if balance:
            penalties.append(partial(imbalance, factor=balance))
    heads = None
    if aux_heads or not isinstance(merge, ConcatMerge | MemoryMerge):
        heads = nn.ModuleDict(
            {"rgb": nn.Linear(sizes[0], num_classes), "skeleton": nn.Linear(sizes[1], num_classes)}
        )
    return TwoStream(
        rgb=video,
        skeleton=bodies,
        merge=merge,
        heads=heads,
        common=common,
        joins=joins,
        fusions=list(fusions),
        penalties=penalties,
        show_aux=aux_heads,
        dropout=dropout,
        skeleton_normalize=SkeletonNormalize(
            centre=centre, rotate=view_rotation, motion=bodies.motion
        ),
    )


def amr_parts(
    pairs: Sequence[tuple[int, int]],
    features: tuple[int, int],
    num_classes: int,
    *,
    heads: int = 4,
    width: int = 8,
    temperature: float = 1.0,
    floor: float = 0.1,
    stage_weights: bool = True,
    stage_gates: bool = True,
    logits: str = "attention",
    evidence: str = "logits",
    per_class: bool = False,
    logit_floor: float = 0.1,
    doubt: float = 0.0,
    detach: bool = False,
    stream_drop: float = 0.0,
    balance: float = 0.0,
) -> tuple[list[nn.Module], nn.Module, float]:
    """The parts of AMR: a module per join (pair of channels), the merge, the weight of `imbalance`.

    stage_weights, stage_gates: modality weights and channel gates between the maps; neither = no
        modules at the stages. logits: "attention" re-weights the two predictions, "mean" does not.
    The rest are the keywords of `StageReweighter` and `LogitReweighter` (`logit_floor` is the
    latter's floor); `docs/amr.md` explains them.
    """
    stages: list[nn.Module] = []
    if stage_weights or stage_gates:
        stages = [
            StageReweighter(
                *pair,
                heads=heads,
                width=width,
                temperature=temperature,
                floor=floor,
                weights=stage_weights,
                gates=stage_gates,
                detach=detach,
            )
            for pair in pairs
        ]
    if logits == "mean":
        if balance and not (stages and stage_weights):
            raise ValueError("model.amr.balance needs weights: set logits=attention")
        return stages, LateMerge(), balance
    if logits != "attention":
        raise ValueError(f"model.amr.logits={logits!r}: choose attention or mean")
    merge = LogitReweighter(
        *features,
        num_classes,
        evidence=evidence,
        per_class=per_class,
        width=width,
        temperature=temperature,
        floor=logit_floor,
        doubt=doubt,
        detach=detach,
        stream_drop=stream_drop,
    )
    return stages, merge, balance


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
