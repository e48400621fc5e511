"""One short run of every method, in figures: whatever changes them changes every training."""

import pytest
import torch

from components.training.loop import train_epochs

RUNS = {
    method: {"method": method}
    for method in ("natural", "pgd_at", "trades", "mart", "fgsm_rs", "nfgsm", "free")
} | {
    "everything": {
        "method": "mart", "ema": 0.9, "accumulate": 2, "ramp": 0.5,
    },
}  # fmt: skip
ROW = (
    "loss", "train_clean_acc", "train_robust_acc", "val_clean_acc", "val_robust_acc_both", "lr",
    "rgb_eps", "skeleton_eps", "steps",
)  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_figures_of_every_method(name, fresh, section, data, threat, pinned) -> None:
    train = section(**{"lr": 1e-3, "attack": {"steps": 2}, **RUNS[name]})
    state = fresh(train)
    before = torch.nn.utils.parameters_to_vector(state.model.parameters()).detach().clone()
    rows = list(train_epochs(state, data, train, threat, seed=0))
    told = {f"{key} {row['epoch']}": row[key] or 0.0 for row in rows for key in ROW}
    moved = torch.nn.utils.parameters_to_vector(state.deployed.parameters()).detach() - before
    told["moved"] = float(moved.norm())
    told["statistics"] = sum(float(b.float().mean()) for b in state.model.buffers())
    pinned(name, told, rel=0.03)
