"""Budgets in the wrong unit, recognised by their size: bytes for pixels, millimetres for metres.

The one place for settings, notebooks and attacks called alone. It imports nothing but the error.
"""

from components.errors import UserError

MILLIMETRES = 1000
WIDEST = 2.0  # metres; a budget that moves joints farther than a person is tall is a slip
GREY = 0.5  # pixels of [0, 1]; a change by so much of every one makes any picture grey


def check_pixels(key: str, eps: float) -> None:
    """UserError for an Linf budget in the unit of bytes: pixels are in [0, 1]."""
    if eps > 1.0:
        raise UserError(f"{key}={eps:g}: pixels are in [0, 1]; {eps:g}/255 was meant?")


def check_metres(key: str, eps: float) -> None:
    """UserError for an Linf budget on joints in the unit of millimetres."""
    if eps > WIDEST:
        raise UserError(
            f"{key}={eps:g}: joints are in metres; {eps / MILLIMETRES:g} was meant (millimetres)?"
        )


def check_l2(key: str, eps: float, values: int) -> None:
    """UserError for an L2 budget on `values` numbers that is of no use in pixels or in metres.

    It would change each number by more than 0.5 on average (root mean square), which makes any
    picture grey and moves every joint half a metre.
    """
    mean = eps / values**0.5
    if mean > GREY:
        raise UserError(
            f"{key}={eps:g} in L2 changes each of {values} values by {mean:.2g} (root mean "
            "square); budgets are for pixels of [0, 1] and joints in metres"
        )
