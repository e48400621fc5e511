"""The loop: resumes bit for bit, notices a collapse and rolls back, keeps its schedules."""

import json
from dataclasses import asdict

import pytest
import torch

from components.batch import Batch
from components.checkpoint import CheckpointError
from components.training.collapse import collapsed, within_noise
from components.training.layout import channels_last
from components.training.loop import train_epochs
from components.training.methods import METHODS
from components.training.phases import training_threat
from components.training.schedule import (
    draw_cell,
    epoch_seed,
    eps_factor,
    lr_factor,
    seed_step,
)
from components.training.state import load_state, new_state, save_state
from components.training.step import NonFiniteLoss
from tests._support.collapse import OtherClasses
from tests._support.weights import same_weights


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "pgd_at", "ema": 0.9, "attack": {"steps": 2, "modalities": "mix"}},
        {"method": "free", "attack": {"steps": 2}},
        {"method": "nfgsm", "ramp": 0.7, "accumulate": 2},
    ],
)
def test_resumed_run_is_bit_equal(changes, fresh, section, data, threat, tmp_path, model_config):
    train = section(epochs=3, **changes)
    whole = fresh(train)
    rows = list(train_epochs(whole, data, train, threat, seed=0))

    cut = fresh(train)
    next(iter(train_epochs(cut, data, train, threat, seed=0)))
    save_state(tmp_path / "state", cut, model_config)
    resumed = fresh(train, seed=99)
    load_state(tmp_path / "state", resumed)
    list(train_epochs(resumed, data, train, threat, seed=0))

    assert same_weights(whole.model, resumed.model)
    if whole.average is not None:
        assert same_weights(whole.average, resumed.average)
        assert not same_weights(whole.model, whole.average)
    a, b = (side.optimizer.state_dict()["state"] for side in (whole, resumed))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[i][slot], b[i][slot]) for i in a for slot in a[i])
    ours, theirs = asdict(whole.position), asdict(resumed.position)
    timed = {"seconds", "train_seconds", "clips_per_s", "finished_at"}
    for side in (ours, theirs):
        side["history"] = [
            {k: v for k, v in row.items() if k not in timed} for row in side["history"]
        ]
    assert ours == theirs
    assert len(rows) == 3


def test_state_of_another_model_is_refused(fresh, section, tmp_path, model_config):
    save_state(tmp_path / "state", fresh(section()), model_config)
    other = new_state(torch.nn.Linear(2, 2), lr=1.0, ema=0.0)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_state(tmp_path / "state", other)
    (tmp_path / "state" / "state.json").unlink()
    with pytest.raises(CheckpointError, match="no training state"):
        load_state(tmp_path / "state", other)


def test_state_folder_holds_no_pickle(fresh, section, tmp_path, model_config):
    save_state(tmp_path / "state", fresh(section(ema=0.9)), model_config)
    names = sorted(p.name for p in (tmp_path / "state").iterdir())
    assert names == ["config.json", "model.safetensors", "state.json", "state.safetensors"]
    json.loads((tmp_path / "state" / "state.json").read_text())


def test_memory_format_bf16_and_warm_up_go_together(fresh, section, data, threat):
    train = section(amp="bf16", ramp=0.5, epochs=2)
    state = fresh(train)
    channels_last(state.model)
    rows = list(train_epochs(state, data, train, threat, seed=0))
    assert [row["skeleton_eps"] for row in rows] == pytest.approx([0.025, 0.05])
    assert all(torch.isfinite(p).all() for p in state.model.parameters())


def test_collapse_rolls_back_and_strengthens_the_attack(fresh, section, data, threat):
    train = section(epochs=3, lr=5e-3, method="fgsm_rs", val_steps=1)
    state = fresh(train)
    weights, rows = [], []
    for row in train_epochs(state, OtherClasses(data, 2), train, threat, seed=0):
        weights.append({k: v.clone() for k, v in state.model.state_dict().items()})
        rows.append(row)
    assert [row["rolled_back"] for row in rows] == [False, False, True]
    assert rows[2]["val_robust_acc_worst"] < 0.5 * rows[1]["val_robust_acc_worst"]
    assert all(torch.equal(weights[1][k], weights[2][k]) for k in weights[1])
    assert state.position.boost == 1 and state.position.best_epoch in (1, 2)
    assert METHODS[train.method].attack_steps(train, state.position.boost) == 2


def test_rollback_can_be_switched_off(fresh, section, data, threat):
    train = section(epochs=3, lr=5e-3, method="fgsm_rs", val_steps=1, rollback=False)
    rows = train_epochs(fresh(train), OtherClasses(data, 2), train, threat, seed=0)
    assert not any(row["rolled_back"] for row in rows)


@pytest.mark.parametrize(
    ("robust", "best", "clips", "train_robust", "train_best", "expected"),
    [
        (0.05, 0.40, 200, 0.90, 0.60, True),  # the textbook case
        (0.30, 0.40, 200, 0.90, 0.60, False),  # robust overfitting is slower
        (0.05, 0.40, 200, 0.20, 0.60, False),  # all falls: divergence
        (0.10, 0.40, 10, 0.90, 0.60, False),  # too few clips to tell
        (0.00, 0.00, 200, 0.90, 0.60, False),
    ],
)
def test_what_counts_as_collapse(robust, best, clips, train_robust, train_best, expected):
    assert collapsed(robust, best, clips, train_robust, train_best) is expected


@pytest.mark.parametrize(
    ("score", "best", "clips", "kept"),
    [
        (0.50, -1.0, 100, True),  # the first epoch
        (0.51, 0.50, 100, True),
        (0.46, 0.50, 100, True),  # one standard error is 0.05
        (0.44, 0.50, 100, False),
        (0.46, 0.50, 1000, False),  # many clips can tell
        (0.99, 1.0, 100, False),  # no error, no noise
    ],
)
def test_the_latest_epoch_within_the_noise_of_the_best_is_kept(score, best, clips, kept):
    assert within_noise(score, best, clips) is kept


def test_best_follows_the_rule_and_its_rank_is_the_highest(fresh, section, data, threat):
    train = section(epochs=5, lr=5e-3, attack={"steps": 1})
    state = fresh(train)
    rows = list(train_epochs(state, data, train, threat, seed=0))
    highest, kept = -1.0, 0
    for row in rows:
        raw = row["val_robust_acc_worst"] + 1e-4 * row["val_clean_acc"]
        if within_noise(raw, highest, row["val_clips"]):
            kept = row["epoch"]
        highest = max(highest, raw)
    assert state.position.best_epoch == kept
    assert max(rows, key=lambda row: row["rank"])["epoch"] == kept
    assert all(0.0 <= row["score"] <= 1.0001 for row in rows)  # an accuracy, kept or not


def test_nonfinite_loss_names_epoch_step_and_clips(fresh, section, data, threat):
    broken = data.clips.skeleton.clone()
    broken[7] = float("inf")
    data.clips = data.clips._replace(skeleton=broken)
    train = section(method="natural")
    with pytest.raises(NonFiniteLoss) as caught:
        list(train_epochs(fresh(train), data, train, threat, seed=0))
    assert caught.value.epoch == 1 and data.clips.clip_id[7] in caught.value.clip_ids


def test_progress_sums_reach_the_row(fresh, section, data, threat):
    train, seen = section(epochs=1), []
    (row,) = train_epochs(
        fresh(train), data, train, threat, seed=0, on_step=lambda p: seen.append(p.step)
    )
    assert seen == [1, 2, 3]
    assert 0.0 <= row["train_robust_acc"] <= 1.0 and 0.0 <= row["train_clean_acc"] <= 1.0
    assert row["val_clips"] == 12 and row["clips_per_s"] > 0


def test_no_validation_clips_is_said(fresh, section, data, threat):
    data.validated = Batch(*(t[:0] for t in data.validated[:4]), ())
    data.validation = lambda: []
    with pytest.raises(ValueError, match="no validation clips"):
        list(train_epochs(fresh(section()), data, section(), threat, seed=0))


def test_schedules():
    assert lr_factor(0.0) == pytest.approx(0.04)
    assert lr_factor(0.3) == pytest.approx(1.0)
    assert lr_factor(1.0) == pytest.approx(1e-4)
    assert [eps_factor(e, 5, 0.6) for e in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert eps_factor(0, 5, 0.0) == 1.0
    assert [eps_factor(e, 2, 1.0) for e in range(2)] == pytest.approx([1 / 3, 2 / 3])


def test_training_eps_grows(section):
    half = training_threat(section().attack, 0.5)
    assert half.skeleton.eps == pytest.approx(0.025) and half.rgb.eps == pytest.approx(4 / 255)


def test_mix_draws_the_same_cells_on_every_worker_in_the_given_shares():
    cells = [draw_cell("mix", 0, e, s) for e in range(20) for s in range(100)]
    again = [draw_cell("mix", 0, e, s) for e in range(20) for s in range(100)]
    assert cells == again
    assert 0.2 < cells.count("rgb") / 2000 < 0.3 and 0.45 < cells.count("both") / 2000 < 0.55
    assert 0.2 < cells.count("skeleton") / 2000 < 0.3
    assert draw_cell("rgb", 0, 0, 0) == "rgb"


def test_seeds_differ_by_position_and_repeat():
    assert len({epoch_seed(s, e) for s in range(3) for e in range(5)}) == 15

    def draw(*position):
        seed_step(*position)
        return float(torch.rand(()))

    draws = [draw(0, e, s, r) for e in range(2) for s in range(3) for r in range(2)]
    assert len(set(draws)) == 12
    assert draw(0, 1, 2, 0) == draws[10]
