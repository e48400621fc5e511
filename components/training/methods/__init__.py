"""The training methods by name. To add one: a file with a `METHOD`, and a line here."""

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

__all__ = ["METHODS", "InnerProblem", "Method", "Terms", "attackable"]
