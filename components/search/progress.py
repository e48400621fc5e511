"""How good the best was after how much work: two searches are compared at equal passes."""

from components.search.ledger import Ledger
from components.search.objective import training_passes, worst_cell


def best_so_far(ledger: Ledger) -> list[tuple[float, float]]:
    """(passes spent, best validation robust accuracy) after each epoch of any trial, in order."""
    spent, best, curve = 0.0, 0.0, []
    for key, epoch in ledger.sequence:
        trial = ledger.trials[key]
        row = trial.rows[epoch]
        spent += training_passes(row, trial.method)
        best = max(best, worst_cell(row))
        curve.append((spent, best))
    return curve


def best_within(curve: list[tuple[float, float]], passes: float) -> float:
    """The best that was reached with at most that many passes; 0 before the first epoch's end."""
    return max((best for spent, best in curve if spent <= passes), default=0.0)
