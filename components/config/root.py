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
from components.units import check_l2, check_metres

JOINTS_OF_A_CLIP = 2 * 25  # of both people, in each frame


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
        for key, values in (("compare", self.compare), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                what = "names one twice" if values else "is empty"
                raise UserError(f"{key}={list(values)} {what}; list each once, and at least one")
        self._check_units()

    def _check_units(self) -> None:
        model, rgb, skeleton = self.model, self.threat.rgb, self.threat.skeleton
        if rgb.norm == "L2":
            check_l2("threat.rgb.eps", rgb.eps, 3 * model.rgb_frames * model.rgb_size**2)
        if self.data.source == "imigue":
            return  # joints in pixels
        check_metres("train.attack.skeleton_eps", self.train.attack.skeleton_eps)
        if skeleton.norm == "L2":
            coordinates = 3 * model.skeleton_frames * JOINTS_OF_A_CLIP
            check_l2("threat.skeleton.eps", skeleton.eps, coordinates)
        else:
            check_metres("threat.skeleton.eps", skeleton.eps)

    @property
    def run(self) -> str:
        """Names one trained model: its variant and seed, as files and MLflow runs are named."""
        return f"{self.variant}-s{self.seed}"
