"""Settings of the evaluation, the report and the registry's gate."""

from typing import Literal

from pydantic import Field

from components.config.base import Fraction, Section


class EvaluateSection(Section):
    """What the evaluate stage runs on the test split."""

    suite: Literal["thin", "quick", "standard"] = "quick"
    batch_size: int = Field(64, ge=1, description="clips of one task, attacked together")
    workers: int = Field(0, ge=0, description="parallel tasks; 0 = one per CPU of the cluster")
    clips: int = Field(0, ge=0, description="evaluate a fixed draw of n test clips; 0 = all")
    twin: str = Field(
        "concat", description="trained model without AMR for the transfer attack; empty = none"
    )
    checks: bool = Field(True, description="gradient-masking checks, see docs/flags.md")
    curves: bool = Field(True, description="robust accuracy against eps, and the eps heat map")
    curve_eps: tuple[Fraction, ...] = Field(
        (0.0, 0.5, 1.0, 2.0), description="multiples of eps, rising from 0"
    )
    curve_clips: int = Field(32, ge=1, description="test clips behind the curves")
    export: bool = Field(False, description="export adversarial clips as Arrow")
    allow_licensed_export: bool = False


class ReportSection(Section):
    """The report stage."""

    title: str = "Robust RGB-skeleton action recognition"
    compare: tuple[str, ...] = Field(
        (), description="artifacts folders of other runs for the table of training eps"
    )


class RegisterSection(Section):
    """Which model is registered under which name, and what a champion must reach."""

    model: str = "amr"
    name: str = "amr"
    min_clean_acc: float = Field(0.0, ge=0, le=1)
    min_robust_acc: float = Field(0.0, ge=0, le=1, description="in the worst cell")
    replace: bool = Field(
        False, description="crown it though the champion was measured on other terms"
    )


class TrackingSection(Section):
    """MLflow; the environment variable MLFLOW_TRACKING_URI goes before `uri`."""

    uri: str = Field("", description="empty = sqlite file in the project folder")
    experiment: str = "amr"
    system_metrics: bool = Field(True, description="CPU, memory, GPU figures of each run")
    system_interval: float = Field(10.0, gt=0, description="seconds between two samples")
    patience: float = Field(10.0, ge=0, description="seconds an ending stage waits for a server")
