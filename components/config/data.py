"""Settings of the data path: where files lie, the sample, the protocol, the shards."""

from dataclasses import dataclass
from typing import Literal

from components.config.base import Section, setting
from components.errors import UserError

CUSTOM = ("subjects", "cameras", "setups")  # what data.custom may name
_WORDS = ", ".join(CUSTOM)


@dataclass(frozen=True)
class Paths(Section):
    """Where raw files are read and results are written; folders that every node sees."""

    data: str = setting("data/sample", "raw files: a folder or link that every node sees")
    data_uri: str = setting(
        "", "raw files in an object store, e.g. s3://bucket/ntu; empty = those in paths.data"
    )
    artifacts: str = setting("artifacts/sample", "results of this recipe")


@dataclass(frozen=True)
class SampleSection(Section):
    """The bundled synthetic NTU-format data set (`pipelines.sample`)."""

    clips_per_class: int = setting(40, "clips of each class", ge=1)


@dataclass(frozen=True)
class DataSection(Section):
    """Which data set, and which clips train, validate and test."""

    source: str = setting(
        "ntu", "adapter of the data set: ntu, pyskl, azure_kinect, mediapipe, ... (docs/data.md)"
    )
    protocol: Literal["xsub60", "xview60", "xsub120", "xset120", "imigue", "custom"] = setting(
        "xsub60", "which clips train and which test"
    )
    custom: dict[str, tuple[int, ...]] = setting(
        {}, "with protocol custom: which subjects, cameras or setups train, e.g. {subjects: [1, 3]}"
    )
    val_subjects: tuple[int, ...] = setting((2, 5, 9, 14), "training subjects that validate")
    val_setups: tuple[int, ...] = setting((), "training setups that validate")
    keep_missing: bool = setting(False, "keep clips on the official lists of missing skeletons")

    def __post_init__(self) -> None:
        named = [name for name, numbers in self.custom.items() if numbers]
        if unknown := sorted(set(self.custom) - set(CUSTOM)):
            raise UserError(f"data.custom has no {unknown[0]!r}; it takes one of {_WORDS}")
        if self.protocol == "custom" and len(named) != 1:
            raise UserError(
                f"data.protocol=custom needs exactly one of {_WORDS} in data.custom, such as "
                f"data.custom.subjects=[1,3,5]; got {' and '.join(named) or 'none'}"
            )
        if self.protocol != "custom" and named:
            raise UserError(
                f"data.custom.{named[0]} is set, but data.protocol is {self.protocol!r}; "
                "set data.protocol=custom, or leave data.custom empty"
            )


@dataclass(frozen=True)
class IndexSection(Section):
    """How thoroughly the index stage looks at each clip."""

    check: Literal["full", "names"] = setting("full", "open every file, or look at names alone")
    clip_seconds: float = setting(
        300.0, "a clip that takes longer to read is rejected; 0 = no limit", unit="seconds", ge=0
    )


@dataclass(frozen=True)
class ShardSection(Section):
    """What the Arrow shards keep of each clip."""

    frames: int = setting(16, "video frames kept per clip, evenly spaced", ge=1)
    size: int = setting(64, "side of the square crop", unit="pixels", ge=16)
    decode: Literal["exact", "fast"] = setting(
        "exact", "fast: MPEG-4 Part 2 at a half or a quarter of its size where the crop allows it"
    )
    codec: Literal["raw", "jpeg"] = setting("raw", "how frames are stored")
    clips_per_shard: int = setting(128, "clips of one Arrow file", ge=1)
    uri: str = setting("", "where shards go, e.g. s3://bucket/prefix; empty = artifacts/shards")
    cache_gb: float = setting(20.0, "local cache for shards read from a URI", unit="GB", gt=0)
