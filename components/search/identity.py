"""What makes two searches the same search, so that the second goes on where the first stopped."""

from components.config import Config, to_dict
from components.fingerprint import code_fingerprint
from components.search.ledger import digest
from components.search.space import trial_config

# How far a search goes may change between two runs of it; what a trial's score means may not.
LENGTH = (
    "enabled", "trials", "max_hours", "max_device_hours", "concurrent", "max_failures",
    "finalists", "finalist_suite", "finalist_clips",
)  # fmt: skip


def identity(config: Config, data: str) -> str:
    """A short hash of settings, clips (`data`, the shards' fingerprint) and the code of a trial."""
    dumped = to_dict(trial_config(config, {}))
    told = {key: dumped[key] for key in ("seed", "data", "model", "threat", "train")}
    told["tune"] = {k: v for k, v in dumped["tune"].items() if k not in LENGTH}
    return digest([told, data, code_fingerprint()], 12)
