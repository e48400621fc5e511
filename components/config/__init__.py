"""Every value a user may set: typed sections, strict loading, `key=value` overrides."""

from components.config.load import apply_overrides, flatten, load_config, parse_overrides
from components.config.root import Config

__all__ = ["Config", "apply_overrides", "flatten", "load_config", "parse_overrides"]
