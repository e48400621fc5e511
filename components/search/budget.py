"""When a search has had enough (trials, hours, device-hours), and how much runs side by side."""

from collections.abc import Mapping
from dataclasses import dataclass

from components.config import Config
from components.config.tune import TuneSection
from components.errors import UserError
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


def slots(config: Config, resources: Mapping[str, float]) -> int:
    """How many trials run side by side: as many as the cluster's CPUs and GPUs hold at once.

    `tune.concurrent` goes before it (a cluster may grow). ValueError when not even one fits.
    """
    section, ray_section = config.tune, config.ray
    if section.concurrent:
        return section.concurrent
    need = {
        "CPU": section.workers * ray_section.cpus_per_worker,
        "GPU": section.workers * ray_section.gpus_per_worker,
    }
    fits = []
    for name, amount in need.items():
        have = resources.get(name, 0.0)
        if amount > have:
            raise UserError(
                f"one trial needs {amount:g} {name}s (tune.workers={section.workers}) and the "
                f"cluster has {have:g}; lower tune.workers or ray.{name.lower()}s_per_worker, or "
                "set tune.concurrent if the cluster will grow"
            )
        if amount:
            fits.append(int(have / amount))
    return max(1, min(fits))
