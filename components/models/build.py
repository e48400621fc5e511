"""From names and numbers to a model: the one place where settings meet constructors."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from components.errors import UserError
from components.models.backbones import SKELETON_BACKBONES, VIDEO_BACKBONES
from components.models.fusions import FUSIONS, Streams
from components.models.normalize import SkeletonNormalize
from components.models.two_stream import TwoStream

# Settings of the section that do not shape the network: it takes any number and size of frames,
# and published weights are loaded once, where training begins.
NOT_OF_THE_NETWORK = ("rgb_frames", "rgb_size", "rgb_weights")


NAMES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "rgb": VIDEO_BACKBONES,
    "skeleton": SKELETON_BACKBONES,
    "fusion": FUSIONS,
}
DEFAULT_FUSION = "amr"


def build_model(config: Mapping[str, Any]) -> TwoStream:
    """The `model` section of params.yaml as a plain dict plus `num_classes` -> a model.

    A key that is left out has the default of `two_stream`. The mapping under the name of the chosen
    fusion holds that fusion's own settings; those of other fusions are ignored. Nothing is read
    from files. Raises UserError for names and settings that do not exist or do not fit.
    """
    settings = {
        key: value
        for key, value in config.items()
        if key not in NOT_OF_THE_NETWORK and key not in FUSIONS
    }
    _check_keywords(two_stream, settings, "model")
    own = config.get(settings.get("fusion", DEFAULT_FUSION)) or {}
    return two_stream(**settings, fusion_settings=own)


def check_names(config: Mapping[str, Any]) -> None:
    """Whether the names in the `model` section exist, without building anything; else UserError."""
    for key, table in NAMES.items():
        if key in config:
            _named(table, config[key], f"model.{key}")


def two_stream(
    *,
    num_classes: int,
    rgb: str = "small_video",
    skeleton: str = "small_skeleton",
    fusion: str = DEFAULT_FUSION,
    fusion_stages: Sequence[int | Sequence[int]] = (),
    time_parts: int = 0,
    aux_heads: bool = True,
    width: float = 1.0,
    dropout: float = 0.3,
    skeleton_frames: int = 32,
    centre: str = "body",
    view_rotation: bool = False,
    fusion_settings: Mapping[str, Any] | None = None,
) -> TwoStream:
    """A two-stream model from names.

    fusion_stages: after which stages the fusion attaches, as Python indices: -1 is the last stage
        of both backbones, 0 the first; a pair [i, j] names the video and the skeleton stage. Empty
        is the fusion's own choice. Fusions that only join predictions or features ignore it.
    time_parts: into how many consecutive parts of time each stream's last map is pooled, so that
        the order of events is visible; a map with less time left repeats. 0 is the fusion's choice.
    aux_heads: per-modality classifiers whose loss training adds (deep supervision).
    fusion_settings: keyword arguments of the fusion's builder in `FUSIONS`.
    """
    if num_classes < 2:
        raise UserError(f"num_classes={num_classes}: a recogniser needs at least 2 classes")
    if time_parts < 0:
        raise UserError(f"model.time_parts={time_parts}: 1 or more, or 0 for the fusion's choice")
    check_names({"rgb": rgb, "skeleton": skeleton, "fusion": fusion})
    own = fusion_settings or {}
    _check_keywords(FUSIONS[fusion], own, f"model.{fusion}")
    # The order of construction decides the initial weights of a seed: backbones, fusion, heads.
    video = VIDEO_BACKBONES[rgb](width=width)
    bodies = SKELETON_BACKBONES[skeleton](width=width, frames=skeleton_frames)
    streams = Streams(
        rgb_channels=video.channels,
        skeleton_channels=bodies.channels,
        pooled=(video.features, bodies.features),
        num_classes=num_classes,
        stages=fusion_stages,
        parts=time_parts,
    )
    fused = FUSIONS[fusion](streams, **own)
    heads = None
    if aux_heads or fused.needs_heads:
        heads = fused.heads(*fused.features, num_classes)
    return TwoStream(
        rgb=video,
        skeleton=bodies,
        merge=fused.merge,
        heads=heads,
        common=fused.common,
        joins=fused.joins,
        between=fused.between,
        penalties=fused.penalties,
        show_aux=aux_heads,
        dropout=dropout if fused.dropout is None else fused.dropout,
        time_parts=fused.time_parts,
        skeleton_normalize=SkeletonNormalize(
            centre=centre, rotate=view_rotation, motion=bodies.motion
        ),
    )


def _named(table: Mapping[str, Any], name: str, key: str) -> None:
    if name not in table:
        raise UserError(f"{key}={name!r} does not exist{_nearest(name, table)}")


def _check_keywords(builder: Callable[..., Any], settings: Mapping[str, Any], key: str) -> None:
    parameters = inspect.signature(builder).parameters.values()
    known = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for name in settings:
        if name not in known:
            raise UserError(f"{key}.{name} is no setting{_nearest(name, known)}")


def _nearest(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (there are: {', '.join(known)})" if known else "; it has none"
