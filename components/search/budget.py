"""When a search has had enough: trials, wall time and device-hours, counted over all sessions."""

from dataclasses import dataclass

from components.config.tune import TuneSection
from components.search.ledger import Ledger


@dataclass(frozen=True)
class Budget:
    """Limits of a search; a limit of 0 is none. `devices` are held by one running trial."""

    trials: int
    max_hours: float
    max_device_hours: float
    devices: int

    @classmethod
    def of(cls, tune: TuneSection) -> "Budget":
        """The limits that the settings name."""
        return cls(tune.trials, tune.max_hours, tune.max_device_hours, tune.workers)

    def spent(self, ledger: Ledger) -> str | None:
        """Which time limit is reached, in words; None while there is time."""
        hours = ledger.wall_seconds / 3600
        if self.max_hours and hours >= self.max_hours:
            return f"tune.max_hours={self.max_hours:g} is used up ({hours:.2f} h)"
        used = self.device_hours(ledger)
        if self.max_device_hours and used >= self.max_device_hours:
            return f"tune.max_device_hours={self.max_device_hours:g} is used up ({used:.2f} h)"
        return None

    def device_hours(self, ledger: Ledger) -> float:
        """Hours of training workers, over all trials."""
        return ledger.trial_seconds * self.devices / 3600
