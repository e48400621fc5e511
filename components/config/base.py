"""How a setting is declared: once, with its type, default, unit, bounds and one line of meaning.

Sections are plain frozen dataclasses, so that code which needs nothing but torch (the training
step) can take a section as it is. Types and bounds are checked when settings load (`load.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any


def setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    multiple_of: int | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field of a section; `ge`, `gt`, `le`, `lt` bound a number (or each number of a tuple)."""
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt, "multiple_of": multiple_of}
    metadata = {
        "meaning": meaning,
        "unit": unit,
        "choices": choices,
        "bounds": {name: bound for name, bound in bounds.items() if bound is not None},
    }
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Section:
    """A group of settings. Unknown keys and wrong types are errors."""

    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}


def to_dict(section: Any) -> Any:
    """A section, or the whole configuration, as plain JSON values."""
    if is_dataclass(section) and not isinstance(section, type):
        return {f.name: to_dict(getattr(section, f.name)) for f in fields(section)}
    if isinstance(section, dict):
        return {key: to_dict(value) for key, value in section.items()}
    if isinstance(section, list | tuple):
        return [to_dict(value) for value in section]
    return section


def settings_of(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, field, value) of every setting of a section instance, nested ones included."""
    for f in fields(section):
        value = getattr(section, f.name)
        if is_dataclass(value):
            yield from settings_of(value, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, f, value
