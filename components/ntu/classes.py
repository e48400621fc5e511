"""Class numbers and names of NTU-RGB+D 120; the first 60 are those of NTU-RGB+D 60.

Source: "Action Classes" in the README of shahroudy/NTURGB-D.
"""

from functools import cache
from importlib.resources import files

TWO_PERSON = frozenset((*range(50, 61), *range(106, 121)))


@cache
def class_names() -> tuple[str, ...]:
    """120 names; the name of class A001 is at position 0."""
    text = (files("components.ntu") / "classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def class_name(action: int) -> str:
    """The name of an action number (1-based), or "A123" when the data set has its own classes."""
    names = class_names()
    return names[action - 1] if 1 <= action <= len(names) else f"A{action:03d}"
