"""Settings of the evaluation, the registry's gate and MLflow."""

from dataclasses import dataclass

from components.config.base import Section, setting
from components.errors import UserError


@dataclass(frozen=True)
class EvaluateSection(Section):
    """What the evaluate stage runs on the test split."""

    suite: str = setting("quick", "attacks: thin, quick, full or standard (docs/evaluation.md)")
    batch_size: int = setting(64, "clips of one task, attacked together", ge=1)
    clips: int = setting(0, "evaluate a fixed draw of n test clips; 0 = all", ge=0)
    twin: str = setting(
        "concat", "variant without AMR for the transfer attack of `standard`; empty = none"
    )
    checks: bool = setting(True, "gradient-masking checks (docs/flags.md)")
    curve_clips: int = setting(16, "test clips behind the curves; 0 = no curves", ge=0)
    export: bool = setting(False, "export adversarial clips as Arrow")
    allow_licensed_export: bool = setting(
        False, "clips that are not the synthetic sample may be exported and shown on the page"
    )


@dataclass(frozen=True)
class RegisterSection(Section):
    """Which model is registered under which name, and what a champion must reach."""

    variant: str = setting("amr", "the variant that is registered")
    name: str = setting("amr", "name in the MLflow registry")
    min_clean_acc: float = setting(0.0, "least clean accuracy of a champion", ge=0, le=1)
    min_robust_acc: float = setting(
        0.0, "least robust accuracy of a champion in its worst cell", ge=0, le=1
    )
    replace: bool = setting(
        False, "promote although the champion was measured on other data or attacks"
    )

    def __post_init__(self) -> None:
        check_name("register.name", self.name)


def check_name(key: str, name: str) -> None:
    """UserError for a name that MLflow's registry or a file system refuses."""
    bad = sorted({c for c in name if c in "/:.%\"'\\" or not c.isprintable()})
    if not name.strip() or bad or len(name.encode()) > 250:
        what = f"holds {' '.join(map(repr, bad))}" if bad else "is empty or too long"
        raise UserError(
            f"{key}={name[:60]!r} {what}; take letters, digits, blanks, '-', '_', at most 250 bytes"
        )


@dataclass(frozen=True)
class TrackingSection(Section):
    """MLflow; the environment variable MLFLOW_TRACKING_URI goes before `uri`."""

    uri: str = setting("", "tracking server; empty = sqlite file in the project folder")
    experiment: str = setting("amr", "name of the MLflow experiment")
    system_metrics: bool = setting(True, "CPU, memory and GPU figures of each run")
    patience: float = setting(
        10.0,
        "an ending stage waits so long for a server that does not answer",
        unit="seconds",
        ge=0,
    )

    def __post_init__(self) -> None:
        name = self.experiment
        if not name.strip() or len(name) > 500 or not name.isprintable():
            raise UserError(
                f"tracking.experiment={name[:60]!r} is empty, too long or holds a character that "
                "cannot be printed; MLflow takes up to 500 printable ones"
            )
