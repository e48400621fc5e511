"""The base of every section: frozen, no unknown keys, numbers that may be written as fractions."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Section(BaseModel):
    """A group of settings. Unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


def parse_fraction(value: object) -> object:
    """Turn "8/255" into a float; leave anything else to the type check that follows."""
    if isinstance(value, str) and "/" in value:
        numerator, _, denominator = value.partition("/")
        try:
            return float(numerator) / float(denominator)
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{value!r} is no fraction; write a number or a form like '8/255'")
    return value


Fraction = Annotated[float, BeforeValidator(parse_fraction)]
