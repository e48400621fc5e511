"""What a check of `amr doctor` is given, and what it says."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.config import Config

OK, WARN, PROBLEM = STATES = ("ok", "warn", "problem")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `fix` is a line for whatever is not ok, else empty."""

    check: str
    state: str
    found: str
    fix: str = ""

    def __post_init__(self) -> None:
        assert self.state in STATES
        assert bool(self.fix) == (self.state != OK), f"{self.check}: a fix for what is not ok"


@dataclass(frozen=True)
class Context:
    """The project that is looked at, with the settings that a stage would have here."""

    root: Path
    params: str
    overrides: tuple[str, ...] = ()

    @cached_property
    def config(self) -> "Config":
        """The settings. ConfigError when they cannot be read, in each check that needs them."""
        from components.config import load_config

        return load_config(self.params, self.overrides)
