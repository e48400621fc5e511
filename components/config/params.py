"""The settings of one command: `params.yaml`, what the search found, the variant, overrides."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.config.load import (
    apply_overrides,
    checked_key,
    parse_overrides,
    set_value,
    valid_keys,
)
from components.config.recipes import base_values, check_fusion, check_variants, variant_settings
from components.config.root import Config


def load_config(
    path: str | Path = "params.yaml",
    overrides: Iterable[str] = (),
    tuned: Mapping[str, Any] | None = None,
) -> Config:
    """The settings of one command.

    In this order, later ones win: the file; what the search found (`tuned`, dotted names); what
    the variant changes; the overrides, such as `train.epochs=2`. The override `recipe=NAME` takes
    that recipe's values in place of the file's (`recipes.py`).
    Raises ConfigError naming the key, what was got and the nearest valid key.
    """
    words = parse_overrides(overrides)
    tree = base_values(Path(path), words)
    known = valid_keys()
    for dotted, value in (tuned or {}).items():
        set_value(tree, checked_key(dotted, known), value)
    tree.update({key: words[key] for key in ("variant", "seed") if key in words})
    changed = variant_settings(Path(path), tree)
    for dotted, value in changed.items():
        set_value(tree, checked_key(dotted, known), value)
    check_fusion(Path(path), tree, words)
    config = apply_overrides(tree, words)
    check_variants(Path(path), config)
    return config
