"""The whole configuration: one section per stage."""

from pydantic import Field

from components.config.base import Section
from components.config.data import DataSection, IndexSection, Paths, SampleSection, ShardSection
from components.config.evaluate import (
    EvaluateSection,
    RegisterSection,
    ReportSection,
    TrackingSection,
)
from components.config.model import ModelSection
from components.config.threat import ThreatSection
from components.config.train import RaySection, TrainSection
from components.config.tune import TuneSection


class Config(Section):
    """All settings; `params.yaml` holds their values."""

    seed: int = Field(0, ge=0)
    seeds: int = Field(3, ge=1, description="of `python -m pipelines.seeds`: seed, seed + 1, ...")
    paths: Paths = Paths()
    sample: SampleSection = SampleSection()
    data: DataSection = DataSection()
    index: IndexSection = IndexSection()
    shard: ShardSection = ShardSection()
    model: ModelSection = ModelSection()
    threat: ThreatSection = ThreatSection()
    train: TrainSection = TrainSection()
    tune: TuneSection = TuneSection()
    evaluate: EvaluateSection = EvaluateSection()
    report: ReportSection = ReportSection()
    register_: RegisterSection = Field(RegisterSection(), alias="register")
    tracking: TrackingSection = TrackingSection()
    ray: RaySection = RaySection()
