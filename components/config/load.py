"""Read `params.yaml` and `key=value` overrides into a checked `Config`."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from components.config.root import Config


class ConfigError(ValueError):
    """A setting is unknown, of a wrong type, or out of range; the message says which."""


def load_config(path: str | Path = "params.yaml", overrides: Iterable[str] = ()) -> Config:
    """The settings in the file, changed by overrides such as `train.epochs=2`.

    Raises ConfigError naming the key, what was got and the nearest valid key.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; run from the project's folder or pass --params")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections with keys, got {type(values).__name__}")
    return apply_overrides(values, parse_overrides(overrides))


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
    tree = base.model_dump(by_alias=True) if isinstance(base, Config) else _copy(base)
    known = valid_keys()
    for dotted, value in overrides.items():
        if dotted not in known and not dotted.startswith("tune.space."):
            raise ConfigError(_unknown(dotted, known))
        _set(tree, dotted, value)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(e, known) for e in error.errors())) from error


def valid_keys() -> list[str]:
    """Every dotted key that can be set, sections included."""
    return sorted(_keys(Config, ""))


def nearest_key(key: str) -> str:
    """The message for a key that does not exist, with the nearest one that does."""
    return _unknown(key, valid_keys())


def flatten(config: Config) -> dict[str, Any]:
    """`{"train.lr": 0.002, ...}`: leaf values by dotted key."""
    flat: dict[str, Any] = {}

    def walk(node: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                walk(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    walk(config.model_dump(mode="json", by_alias=True), "")
    return flat


def _keys(section: type[BaseModel], prefix: str) -> Iterable[str]:
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        yield key
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, key + ".")


def _copy(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in tree.items()}


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    # A name in the search space holds dots itself: tune.space.<dotted name>=...
    parts = (
        ["tune", "space", dotted[11:]] if dotted.startswith("tune.space.") else dotted.split(".")
    )
    for part in parts[:-1]:
        node = tree.setdefault(part, {})
        if node is None:
            node = tree[part] = {}
        tree = node
    tree[parts[-1]] = value


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    # A wrong section with a right leaf is the commonest slip: epochs=2 for train.epochs=2.
    leaf = [k for k in known if k.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    hint = near[0] if near else (leaf[0] if leaf else None)
    return f"unknown parameter {key!r}" + (f"; did you mean {hint!r}?" if hint else "")


def _explain(error: Mapping[str, Any], known: list[str]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return _unknown(key, known)
    message = error["msg"].removeprefix("Value error, ")
    if not key or error["type"] == "value_error" and error["input"] == {}:
        return message
    return f"{key}: {message} (got {error['input']!r})"
