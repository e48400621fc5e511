"""How many trials of a search a cluster holds at once."""

from collections.abc import Mapping

from components.config import Config
from components.errors import UserError


def slots(config: Config, resources: Mapping[str, float]) -> int:
    """How many trials run side by side: as many as the cluster's CPUs and GPUs hold at once.

    UserError when not even one fits.
    """
    workers, section = config.tune.workers, config.ray
    need = {
        "CPU": workers * section.cpus_per_worker,
        "GPU": workers * section.gpus_per_worker,
    }
    fits = []
    for name, amount in need.items():
        have = resources.get(name, 0.0)
        if amount > have:
            raise UserError(
                f"one trial needs {amount:g} {name}s (tune.workers={workers}) and the "
                f"cluster has {have:g}; lower tune.workers or ray.{name.lower()}s_per_worker"
            )
        if amount:
            fits.append(int(have / amount))
    return max(1, min(fits))
