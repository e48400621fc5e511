"""The training methods by name. To add one: a file with a `METHOD`, and a line here."""

from components.errors import UserError
from components.training.methods import fgsm_rs, free, mart, natural, nfgsm, pgd_at, trades
from components.training.methods.base import InnerProblem, Method, Terms, attackable

METHODS: dict[str, Method] = {
    "natural": natural.METHOD,
    "pgd_at": pgd_at.METHOD,
    "trades": trades.METHOD,
    "mart": mart.METHOD,
    "fgsm_rs": fgsm_rs.METHOD,
    "nfgsm": nfgsm.METHOD,
    "free": free.METHOD,
}


def method_of(name: str) -> Method:
    """The training method of this name. UserError with the nearest name for an unknown one."""
    if name not in METHODS:
        from components.config.load import nearest  # needs pydantic and yaml; a step does not

        raise UserError(f"no training method {name!r}{nearest(name, METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "InnerProblem", "Method", "Terms", "attackable", "method_of"]
