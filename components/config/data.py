"""Settings of the data path: where files lie, the sample, the protocol, the shards."""

from dataclasses import dataclass
from typing import Literal

from components.config.base import Section, setting
from components.errors import UserError


@dataclass(frozen=True)
class Paths(Section):
    """Where raw files are read and results are written; folders or URIs that every node sees."""

    data: str = setting("data/sample", "raw files: a folder or link that every node sees")
    artifacts: str = setting("artifacts/sample", "results of this recipe")


@dataclass(frozen=True)
class SampleSection(Section):
    """The bundled synthetic NTU-format data set (`pipelines.sample`)."""

    subjects: int = setting(20, "subjects of the synthetic sample", ge=3, le=40)
    clips_per_class: int = setting(40, "clips of each class", ge=1)
    width: int = setting(320, "width of the videos", unit="pixels", ge=64, multiple_of=2)
    height: int = setting(180, "height of the videos", unit="pixels", ge=36, multiple_of=2)
    frames: tuple[int, int] = setting((24, 40), "fewest and most frames of a clip")
    skeleton_noise: float = setting(0.02, "sensor noise at 3 m distance", unit="metres", ge=0)
    dirty: bool = setting(True, "plant the faults that real files have")
    workers: int = setting(0, "processes; 0 = one per CPU", ge=0)

    def __post_init__(self) -> None:
        low, high = self.frames
        if not 8 <= low <= high:
            raise UserError(
                f"sample.frames={[low, high]} must be [low, high] with 8 <= low <= high"
            )


@dataclass(frozen=True)
class DataSection(Section):
    """Which data set, and which clips train, validate and test."""

    source: str = setting("ntu", "adapter of the data set: ntu, utd_mhad, imigue or your own")
    protocol: Literal["xsub60", "xview60", "xsub120", "xset120", "imigue", "custom"] = setting(
        "xsub60", "which clips train and which test"
    )
    train_subjects: tuple[int, ...] = setting((), "with custom: exactly one of these three lists")
    train_cameras: tuple[int, ...] = setting((), "with custom: cameras that train")
    train_setups: tuple[int, ...] = setting((), "with custom: setups that train")
    val_subjects: tuple[int, ...] = setting((2, 5, 9, 14), "training subjects that validate")
    val_setups: tuple[int, ...] = setting((), "training setups that validate")
    keep_missing: bool = setting(False, "keep clips on the official lists of missing skeletons")

    def __post_init__(self) -> None:
        named = [k for k in ("train_subjects", "train_cameras", "train_setups") if getattr(self, k)]
        if self.protocol == "custom" and len(named) != 1:
            raise UserError(
                "data.protocol=custom needs exactly one of data.train_subjects, "
                f"data.train_cameras, data.train_setups; got {named or 'none'}"
            )
        if self.protocol != "custom" and named:
            raise UserError(
                f"data.{named[0]} is set, but data.protocol is {self.protocol!r}; "
                "set data.protocol=custom, or leave the list empty"
            )


@dataclass(frozen=True)
class IndexSection(Section):
    """How thoroughly the index stage looks at each clip."""

    check: Literal["full", "names"] = setting("full", "open every file, or look at names alone")
    workers: int = setting(0, "parallel tasks; 0 = one per CPU of the cluster", ge=0)
    clip_seconds: float = setting(300.0, "a clip that takes longer is rejected", ge=0)


@dataclass(frozen=True)
class ShardSection(Section):
    """What the Arrow shards keep of each clip."""

    frames: int = setting(16, "video frames kept per clip, evenly spaced", ge=1)
    size: int = setting(64, "side of the square crop", unit="pixels", ge=16)
    margin: float = setting(0.15, "margin around the people, as a share of their box", ge=0)
    codec: Literal["raw", "jpeg"] = setting("raw", "how frames are stored")
    jpeg_quality: int = setting(92, "quality of JPEG frames", ge=1, le=100)
    clips_per_shard: int = setting(128, "clips of one Arrow file", ge=1)
    workers: int = setting(0, "parallel tasks; 0 = one per CPU of the cluster", ge=0)
    threads: int = setting(1, "decoder threads of each task", ge=1)
    clip_seconds: float = setting(300.0, "a clip that takes longer is rejected", ge=0)
    uri: str = setting("", "where shards go, e.g. s3://bucket/prefix; empty = artifacts/shards")
    cache_gb: float = setting(20.0, "local cache for shards read from a URI", unit="GB", gt=0)
