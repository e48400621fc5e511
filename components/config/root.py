"""The whole configuration: what is compared, and one section per stage."""

from dataclasses import dataclass

from components.config.base import Section, setting
from components.config.data import DataSection, IndexSection, Paths, SampleSection, ShardSection
from components.config.evaluate import (
    EvaluateSection,
    RegisterSection,
    TrackingSection,
)
from components.config.model import ModelSection
from components.config.threat import ThreatSection
from components.config.train import RaySection, TrainSection
from components.config.tune import TuneSection
from components.errors import UserError


@dataclass(frozen=True)
class Config(Section):
    """All settings. `params.yaml` holds the values in use, composed from a recipe."""

    recipe: str = setting("sample", "the file in recipes/ that these values come from")
    variant: str = setting("amr", "what one command trains or evaluates (recipes/variants.yaml)")
    seed: int = setting(0, "of everything random in that command", ge=0)
    compare: tuple[str, ...] = setting(
        ("amr", "mmtm", "concat"), "the variants that `dvc repro` trains and evaluates"
    )
    seeds: tuple[int, ...] = setting((0,), "the seeds that it trains each of them with", ge=0)
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
    register: RegisterSection = RegisterSection()
    tracking: TrackingSection = TrackingSection()
    ray: RaySection = RaySection()

    def __post_init__(self) -> None:
        if self.data.source == "imigue":
            return  # joints in pixels
        budgets = {
            "threat.skeleton.eps": self.threat.skeleton.eps,
            "train.attack.skeleton_eps": self.train.attack.skeleton_eps,
        }
        for key, eps in budgets.items():
            if eps > 2.0 and self.threat.skeleton.norm == "Linf":
                raise UserError(
                    f"{key}={eps:g}: joints are in metres; {eps / 1000:g} was meant (millimetres)?"
                )

    @property
    def run(self) -> str:
        """Names one trained model: its variant and seed, as files and MLflow runs are named."""
        return f"{self.variant}-s{self.seed}"
