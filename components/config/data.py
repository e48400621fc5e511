"""Settings of the data path: where files lie, the sample, the protocol, the shards."""

from typing import Literal

from pydantic import Field, model_validator

from components.config.base import Section


class Paths(Section):
    """Where raw files are read and results are written; folders or URIs that every node sees."""

    data: str = "data"
    artifacts: str = "artifacts"


class SampleSection(Section):
    """The bundled synthetic NTU-format data set (`pipelines.sample`)."""

    subjects: int = Field(20, ge=3, le=40)
    clips_per_class: int = Field(40, ge=1)
    width: int = Field(320, ge=64, multiple_of=2)
    height: int = Field(180, ge=36, multiple_of=2)
    frames: tuple[int, int] = Field((24, 40), description="fewest and most frames of a clip")
    skeleton_noise: float = Field(0.02, ge=0.0, description="metres at 3 m distance")
    dirty: bool = Field(True, description="plant the faults that real files have")
    workers: int = Field(0, ge=0, description="processes; 0 = one per CPU")

    @model_validator(mode="after")
    def _frames_in_order(self) -> "SampleSection":
        low, high = self.frames
        if not 8 <= low <= high:
            raise ValueError(
                f"sample.frames={[low, high]} must be [low, high] with 8 <= low <= high"
            )
        return self


class DataSection(Section):
    """Which data set, and which clips train, validate and test."""

    source: str = Field("ntu", description="an adapter named in components/sources/registry.py")
    protocol: Literal["xsub60", "xview60", "xsub120", "xset120", "imigue", "custom"] = "xsub60"
    train_subjects: tuple[int, ...] = ()
    train_cameras: tuple[int, ...] = ()
    train_setups: tuple[int, ...] = ()
    val_subjects: tuple[int, ...] = (2, 5, 9, 14)
    val_setups: tuple[int, ...] = ()
    keep_missing: bool = False

    @model_validator(mode="after")
    def _one_custom_key(self) -> "DataSection":
        named = [k for k in ("train_subjects", "train_cameras", "train_setups") if getattr(self, k)]
        if self.protocol == "custom" and len(named) != 1:
            raise ValueError(
                "data.protocol=custom needs exactly one of data.train_subjects, "
                f"data.train_cameras, data.train_setups; got {named or 'none'}"
            )
        if self.protocol != "custom" and named:
            raise ValueError(
                f"data.{named[0]} is set, but data.protocol is {self.protocol!r}; "
                "set data.protocol=custom, or leave the list empty"
            )
        return self


class IndexSection(Section):
    """How thoroughly the index stage looks at each clip."""

    check: Literal["full", "names"] = "full"
    workers: int = Field(0, ge=0, description="parallel tasks; 0 = one per CPU of the cluster")
    clip_seconds: float = Field(300.0, ge=0, description="a clip that takes longer is rejected")


class ShardSection(Section):
    """What the Arrow shards keep of each clip."""

    frames: int = Field(16, ge=1, description="video frames kept per clip, evenly spaced")
    size: int = Field(64, ge=16, description="side of the square crop in pixels")
    margin: float = Field(0.15, ge=0.0, description="margin around the people, share of the box")
    codec: Literal["raw", "jpeg"] = "raw"
    jpeg_quality: int = Field(92, ge=1, le=100)
    clips_per_shard: int = Field(128, ge=1)
    workers: int = Field(0, ge=0, description="parallel tasks; 0 = one per CPU of the cluster")
    threads: int = Field(1, ge=1, description="decoder threads of each task")
    clip_seconds: float = Field(300.0, ge=0, description="a clip that takes longer is rejected")
    uri: str = Field("", description="where shards go; empty = <paths.artifacts>/shards")
    cache_gb: float = Field(20.0, gt=0, description="local cache for shards read from a URI")
