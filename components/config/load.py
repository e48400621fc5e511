"""Plain values and `key=value` overrides, checked: names, types, bounds, choices."""

import difflib
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import Field, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

import yaml
from pydantic import TypeAdapter, ValidationError

from components.config.base import settings_of, to_dict
from components.config.removed import REMOVED, what_became, without_removed
from components.config.root import Config
from components.config.tune import Choice, Ratio
from components.errors import UserError

logger = logging.getLogger(__name__)

FRACTION = re.compile(r"\s*([\d.]+)\s*/\s*([\d.]+)\s*")
SPACE = "tune.space."  # below it the keys are dotted names themselves
CUSTOM = "data.custom."  # below it the section itself says which keys there are


class ConfigError(UserError):
    """A setting is unknown, of a wrong type, or out of range; the message says which."""


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; ConfigError otherwise."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; run from the project's folder or pass --params")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections with keys, got {type(values).__name__}")
    return values


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """`["train.epochs=2"]` -> `{"train.epochs": 2}`; values are YAML."""
    parsed = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r} is no override; write key=value, e.g. train.epochs=2")
        try:
            parsed[key.strip()] = yaml.safe_load(text) if text else ""
        except yaml.YAMLError as error:
            raise ConfigError(f"{key}: {text!r} is not a valid YAML value") from error
    return parsed


def apply_overrides(base: Config | Mapping[str, Any], overrides: Mapping[str, Any]) -> Config:
    """A checked Config: `base` with dotted keys replaced."""
    tree = to_dict(dict(base) if isinstance(base, Mapping) else base)
    known = valid_keys()
    for dotted, value in overrides.items():
        set_value(tree, checked_key(dotted, known), value)
    return from_dict(tree)


def from_dict(tree: Mapping[str, Any]) -> Config:
    """A checked Config from plain values by section; ConfigError names every fault."""
    try:
        config = _adapter().validate_python(_with_fractions(tree, ""))
    except ValidationError as error:
        known = valid_keys()
        raise ConfigError("\n".join(_explain(e, known) for e in error.errors())) from error
    faults = [fault for item in settings_of(config) for fault in _out_of_bounds(*item)]
    if faults:
        raise ConfigError("\n".join(faults))
    _check_space(config)
    return config


def from_older(tree: Mapping[str, Any], origin: str) -> Config:
    """As `from_dict`, for what an older version wrote, such as a checkpoint.

    Settings that are gone since are left out, and a warning names them, `origin` and what became of
    them. One that never was is an error as everywhere.
    """
    kept, gone = without_removed(tree)
    if gone:
        words = "; ".join(f"{name} ({REMOVED[name]})" for name in gone)
        logger.warning("%s: ignored settings that are gone: %s", origin, words)
    return from_dict(kept)


@lru_cache(maxsize=1)
def valid_keys() -> tuple[str, ...]:
    """Every dotted key that can be set, sections included."""
    return tuple(sorted(_keys(Config(), "")))


def nearest_key(key: str) -> str:
    """The message for a key that does not exist, with the nearest one that does."""
    return _unknown(key, valid_keys())


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean ...?` for a name that is not among `names`, and the list of them."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return (f"; did you mean {near[0]!r}?" if near else ".") + f" There are: {', '.join(names)}"


def flatten(config: Config) -> dict[str, Any]:
    """`{"train.lr": 0.002, ...}`: leaf values by dotted key."""
    flat: dict[str, Any] = {}

    def walk(node: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                walk(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    walk(to_dict(config), "")
    return flat


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Config]:
    return TypeAdapter(Config)


def _keys(section: Any, prefix: str) -> Iterable[str]:
    for f in fields(section):
        yield prefix + f.name
        if is_dataclass(getattr(section, f.name)):
            yield from _keys(getattr(section, f.name), f"{prefix}{f.name}.")


def checked_key(dotted: str, known: Iterable[str]) -> str:
    """The same name; ConfigError for one that is not `known` and lies in no open mapping."""
    if dotted not in known and not dotted.startswith((SPACE, CUSTOM)):
        raise ConfigError(_unknown(dotted, known))
    return dotted


def set_value(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a dotted name in nested sections, in place."""
    parts = dotted.split(".")
    if dotted.startswith(SPACE):
        parts = ["tune", "space", dotted.removeprefix(SPACE)]
    for part in parts[:-1]:
        node = tree.setdefault(part, {})
        if node is None:
            node = tree[part] = {}
        tree = node
    tree[parts[-1]] = value


def _with_fractions(value: Any, key: str) -> Any:
    """The same tree with "8/255" as a number: budgets are written so."""
    if isinstance(value, Mapping):
        return {k: _with_fractions(v, f"{key}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_with_fractions(v, key) for v in value]
    found = FRACTION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    try:
        return float(found[1]) / float(found[2])
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"{key}: {value!r} is no fraction; write a number or '8/255'") from error


def _out_of_bounds(key: str, declared: Field[Any], value: Any) -> Iterable[str]:
    bounds, choices = (declared.metadata.get(k) for k in ("bounds", "choices"))
    if choices and value not in choices:
        yield f"{key}: {value!r} is none of its choices{nearest(str(value), choices)}"
    for number in value if isinstance(value, tuple) else (value,):
        for name, bound in (bounds or {}).items():
            if not _HOLDS[name](number, bound):
                yield f"{key}: must be {_WORDS[name]} {bound:g} (got {number!r})"


def _check_space(config: Config) -> None:
    """ConfigError where an end of the search space is no value of its setting: a wrong unit, say.

    Only where the setting is a real number. Whether a name may be searched at all, and choices
    that depend on each other, are left to the search (`components.search.space`).
    """
    flat, tree = flatten(config), to_dict(config)
    tree["tune"]["space"] = {}
    for name, drawn in config.tune.space.items():
        if not name.startswith(("train.", "model.")) or not isinstance(flat.get(name), float):
            continue
        of = flat.get(drawn.of) if isinstance(drawn, Ratio) else 1.0
        ends = drawn.values if isinstance(drawn, Choice) else (drawn.low, drawn.high)
        if not isinstance(drawn, Choice) and not drawn.low < drawn.high:
            continue
        for end in ends:
            if not _is_number(end) or not _is_number(of):
                continue
            try:
                apply_overrides(tree, {name: end * of})
            except ConfigError as error:
                raise ConfigError(f"tune.space: {name}: {error}") from error


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


_HOLDS = {
    "ge": lambda x, b: x >= b,
    "gt": lambda x, b: x > b,
    "le": lambda x, b: x <= b,
    "lt": lambda x, b: x < b,
    "multiple_of": lambda x, b: math.remainder(x, b) == 0,
}
_WORDS = {
    "ge": "at least", "gt": "above", "le": "at most", "lt": "below",
    "multiple_of": "a multiple of",
}  # fmt: skip


def _unknown(key: str, known: Iterable[str]) -> str:
    known = list(known)
    if key not in known and (gone := what_became(key)):
        return gone
    # A leaf without its section is the commonest slip: epochs=2 for train.epochs=2.
    leaf = [k for k in known if "." not in key and k.rsplit(".", 1)[-1] == key]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    hint = next(iter([*(k for k in leaf if k.startswith("train.")), *leaf, *near]), None)
    return f"unknown parameter {key!r}" + (f"; did you mean {hint!r}?" if hint else "")


def _explain(error: Any, known: Iterable[str]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return _unknown(key, known)
    a_value = error["type"] == "value_error"  # a check of the section's own
    if isinstance(error["input"], Mapping) and key in known and not a_value:
        if gone := what_became(key):
            return gone  # a section that has become one setting
    message = error["msg"].removeprefix("Value error, ")
    if not key or a_value:
        return message
    return f"{key}: {message} (got {error['input']!r})"
