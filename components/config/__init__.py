"""Every value a user may set: typed sections, recipes, strict loading, `key=value` overrides.

What checks types is imported only when it is used, so that a section alone needs no package.
"""

from typing import TYPE_CHECKING, Any

from components.config.base import to_dict

if TYPE_CHECKING:
    from components.config.load import (
        ConfigError,
        apply_overrides,
        flatten,
        from_dict,
        from_older,
        parse_overrides,
    )
    from components.config.params import load_config
    from components.config.root import Config

__all__ = [
    "Config",
    "ConfigError",
    "apply_overrides",
    "flatten",
    "from_dict",
    "from_older",
    "load_config",
    "parse_overrides",
    "to_dict",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from components.config import load, params, root

    home = {"Config": root, "load_config": params}.get(name, load)
    return getattr(home, name)
