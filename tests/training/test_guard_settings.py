"""Every setting of training reaches the step, and the step is the one of the formulas."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from components.attacks import Budget, ThreatModel
from components.training.collapse import collapsed
from components.training.loop import train_epochs
from components.training.stacking import choose_parameters
from components.training.step import NonFiniteLoss
from components.training.validation import validate
from tests._support.collapse import OtherClasses

EPS = {"rgb": 8 / 255, "skeleton": 0.05}


def vector(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@pytest.fixture
def train(fresh, section, data, threat):
    """One epoch with changes: (the state afterwards, the row)."""

    def run(threat=threat, data=data, prepare=lambda state: None, on_step=None, **changes):
        settings = section(**{"epochs": 1, "val_steps": 1, **changes})
        state = fresh(settings)
        prepare(state)
        rows = list(train_epochs(state, data, settings, threat, seed=0, on_step=on_step))
        return state, rows[-1]

    return run


@pytest.fixture
def same_batch(data):
    """Data that brings the same eight clips in every epoch, one step each."""
    clips = data.clips.select(torch.arange(8))
    return SimpleNamespace(
        steps=lambda: 1, train=lambda epoch: [(clips, 8)], validation=data.validation, clips=clips
    )


CHANGES = [
    ("natural", {"aux_weight": 4.0}),
    ("natural", {"accumulate": 2}),
    ("natural", {"lr": 1e-3}),
    ("pgd_at", {"ramp": 1.0}),
    ("pgd_at", {"attack": {"steps": 3}}),
    ("pgd_at", {"attack": {"steps": 2, "rel_alpha": 0.1}}),
    ("pgd_at", {"attack": {"steps": 2, "early_stop": True}}),
    ("pgd_at", {"attack": {"steps": 2, "loss": "soft_margin"}}),
    ("pgd_at", {"attack": {"steps": 2, "rgb_eps": 0.1}}),
    ("pgd_at", {"attack": {"steps": 2, "skeleton_eps": 0.2}}),
    ("pgd_at", {"attack": {"steps": 2, "modalities": "rgb"}}),
    ("pgd_at", {"attack": {"steps": 2, "modalities": "skeleton"}}),
    ("fgsm_rs", {"attack": {"rel_alpha": 0.3}}),
    ("nfgsm", {"attack": {"rel_alpha": 0.3}}),
    ("free", {"attack": {"steps": 2, "rel_alpha": 0.3}}),
]


@pytest.mark.parametrize(("method", "change"), CHANGES, ids=str)
def test_a_setting_changes_what_is_learned(method, change, train, same_batch) -> None:
    base = {"method": method, "attack": {"steps": 2}, "lr": 2e-3}
    plain, _ = train(data=same_batch, **base)
    again, _ = train(data=same_batch, **base)
    changed, _ = train(data=same_batch, **{**base, **change})
    assert torch.equal(vector(plain.model), vector(again.model))
    assert not torch.equal(vector(plain.model), vector(changed.model))


@pytest.mark.parametrize(
    ("method", "constant", "value"),
    [
        ("natural", "step.GRAD_CLIP", 1e-4),
        ("trades", "methods.base.BETA", 1.0),
        ("mart", "methods.base.BETA", 1.0),
    ],
)
def test_a_constant_changes_what_is_learned(
    method, constant, value, train, same_batch, monkeypatch
) -> None:
    base = {"method": method, "attack": {"steps": 2}, "lr": 2e-3}
    plain, _ = train(data=same_batch, **base)
    monkeypatch.setattr(f"components.training.{constant}", value)
    changed, _ = train(data=same_batch, **base)
    assert not torch.equal(vector(plain.model), vector(changed.model))


def test_one_step_is_adamw_on_the_loss_of_the_formula(train, fresh, section, data, monkeypatch):
    """CE + aux_weight * mean CE of the heads + the fusion's own; clipped; no decay of 1-d ones."""
    clips = data.clips.select(torch.arange(8))
    single = SimpleNamespace(
        steps=lambda: 1, train=lambda epoch: [(clips, 8)], validation=data.validation
    )
    monkeypatch.setattr("components.training.step.GRAD_CLIP", 0.1)
    settings = {"method": "natural", "lr": 0.25, "aux_weight": 0.7}  # one cycle begins at a 25th

    def decay_more(state):
        groups = state.optimizer.param_groups
        assert [group["weight_decay"] for group in groups] == [5e-4, 0.0]
        groups[0]["weight_decay"] = 0.5  # enough to be seen in one step

    state, row = train(data=single, prepare=decay_more, **settings)
    model = fresh(section(**settings)).model.train()
    choose_parameters(model, held_out=False)  # the weights between the streams have their own part
    output = model(clips.rgb, clips.skeleton, clips.present)

    def entropy(logits):
        return -(F.one_hot(clips.label, 3) * logits.log_softmax(1)).sum(1)

    heads = torch.stack([entropy(logits) for logits in output.aux.values()])
    assert len(heads) == 2
    loss = (entropy(output.logits) + 0.7 * heads.mean(0)).mean() + model.regulariser(output)
    assert float(model.regulariser(output).detach()) > 0.0
    loss.backward()
    assert row["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert row["train_clean_acc"] == pytest.approx(
        float((output.logits.argmax(1) == clips.label).float().mean())
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    norm = torch.cat([p.grad.flatten() for p in trained]).norm()
    assert norm > 0.1
    for parameter in trained:
        parameter.grad *= 0.1 / (norm + 1e-6)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.5},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    torch.optim.AdamW(groups, lr=1e-2).step()
    torch.testing.assert_close(vector(state.model), vector(model), rtol=1e-4, atol=1e-6)


def test_the_loss_is_divided_by_the_clips_of_the_whole_batch(
    train, same_batch, monkeypatch
) -> None:
    """Of two workers with four clips each of eight, every one divides by four: so DDP's mean is
    the mean over eight."""
    monkeypatch.setattr("components.training.step.GRAD_CLIP", torch.inf)
    grads = {}
    for told in (8, 16):
        data = SimpleNamespace(**vars(same_batch))
        data.train = lambda epoch, told=told: [(same_batch.clips, told)]
        state, _ = train(data=data, method="natural")
        grads[told] = torch.cat(
            [p.grad.flatten() for p in state.model.parameters() if p.requires_grad]
        )
    # The fusion's own term is a mean over the clips already, and is divided along.
    torch.testing.assert_close(grads[8], 2 * grads[16])


def seen_in_training(train, data, **changes):
    """The inputs (rgb, skeleton) of the passes that train, step by step, and the clips."""
    seen = []

    def spy(module, inputs):
        if module.training:
            seen.append(tuple(x.detach().clone() for x in inputs[:2]))

    train(
        data=data,
        prepare=lambda state: state.model.register_forward_pre_hook(spy),
        **{"lr": 1e-12, "rollback": False, **changes},
    )
    return seen


def relative(seen, clips):
    """(seen - clean) / eps of both modalities, the skeleton's of the person who is there."""
    rgb, skeleton = seen
    return (rgb - clips.rgb) / EPS["rgb"], ((skeleton - clips.skeleton) / EPS["skeleton"])[..., 0]


def test_what_is_trained_on_is_what_the_attack_found(train, same_batch) -> None:
    clips = same_batch.clips
    ((rgb, skeleton),) = seen_in_training(train, same_batch, method="natural")
    assert torch.equal(rgb, clips.rgb) and torch.equal(skeleton, clips.skeleton)
    for method in ("pgd_at", "fgsm_rs", "trades", "mart"):
        ((rgb, skeleton),) = seen_in_training(train, same_batch, method=method)
        if method in ("trades", "mart"):
            assert torch.equal(rgb[:8], clips.rgb) and torch.equal(skeleton[:8], clips.skeleton)
            rgb, skeleton = rgb[8:], skeleton[8:]
        moved = relative((rgb, skeleton), clips)
        for change in moved:
            assert change.abs().flatten(1).amax(1).min() > 0.9
            assert change.abs().max() < 1.0001


@pytest.mark.parametrize("cell", ["rgb", "skeleton"])
def test_only_the_modality_of_the_settings_is_attacked(cell, train, same_batch) -> None:
    attack = {"steps": 2, "modalities": cell}
    (seen,) = seen_in_training(train, same_batch, method="pgd_at", attack=attack)
    rgb, skeleton = relative(seen, same_batch.clips)
    assert (cell == "rgb") == bool(rgb.any()) and (cell == "skeleton") == bool(skeleton.any())


def test_single_steps_are_as_long_as_their_papers_say(train, same_batch) -> None:
    """FGSM-RS goes 1.25 eps: 5 of 8 uniform starts end in the corner. N-FGSM: 2 eps and 1."""
    (seen,) = seen_in_training(train, same_batch, method="fgsm_rs")
    _, skeleton = relative(seen, same_batch.clips)
    assert 0.59 < float((skeleton.abs() > 0.999).float().mean()) < 0.66
    (seen,) = seen_in_training(train, same_batch, method="nfgsm")
    _, skeleton = relative(seen, same_batch.clips)
    assert 2.9 < float(skeleton.abs().max()) < 3.001
    assert 0.22 < float((skeleton.abs() > 2).float().mean()) < 0.28


def test_the_attack_of_trades_asks_for_no_label_and_starts_at_random(train, same_batch) -> None:
    found = {}
    for method in ("trades", "pgd_at"):
        for turn in (0, 1):
            data = SimpleNamespace(**vars(same_batch))
            clips = same_batch.clips._replace(label=(same_batch.clips.label + turn) % 3)
            data.train = lambda epoch, clips=clips: [(clips, 8)]
            ((_, skeleton),) = seen_in_training(train, data, method=method)
            found[method, turn] = skeleton[-8:]
    assert torch.equal(found["trades", 0], found["trades", 1])
    assert not torch.equal(found["pgd_at", 0], found["pgd_at", 1])
    attack = {"steps": 1, "rel_alpha": 0.1}
    ((_, skeleton),) = seen_in_training(train, same_batch, method="trades", attack=attack)
    moved = (skeleton[8:] - same_batch.clips.skeleton) / EPS["skeleton"]
    assert float(moved.abs().max()) > 0.9


def test_every_epoch_starts_its_attack_elsewhere(train, same_batch) -> None:
    attack = {"steps": 1, "rel_alpha": 0.01}
    first, second = seen_in_training(train, same_batch, epochs=2, attack=attack)
    for one, other in zip(
        relative(first, same_batch.clips), relative(second, same_batch.clips), strict=True
    ):
        assert float((one - other).abs().max()) > 1.0  # a step alone makes 0.02 at most


def test_the_budget_grows_over_the_warm_up(train, same_batch) -> None:
    seen = seen_in_training(train, same_batch, epochs=4, ramp=0.5, method="pgd_at")
    sizes = [float(relative(s, same_batch.clips)[1].abs().max()) for s in seen]
    assert sizes == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0], abs=1e-3)


def test_dropout_is_seeded_by_seed_epoch_step_and_rank(fresh, section, data, threat) -> None:
    seeds = []
    for seed, rank in ((0, 0), (0, 1), (1, 0)):
        settings = section(method="natural", epochs=2)
        place = SimpleNamespace(rank=rank, device=torch.device("cpu"))
        note = lambda progress: seeds.append(torch.initial_seed())  # noqa: E731
        list(
            train_epochs(
                fresh(settings), data, settings, threat, seed=seed, worker=place, on_step=note
            )
        )
    assert len(seeds) == len(set(seeds)) == 3 * 2 * data.steps()


def test_a_model_in_evaluation_mode_is_put_to_training(train) -> None:
    state, _ = train(method="natural", prepare=lambda state: state.model.eval())
    norms = [m for m in state.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(int(norm.num_batches_tracked) > 0 for norm in norms)


def test_validation_attacks_with_its_own_budget_and_steps(train, data) -> None:
    """Natural training makes no pass in evaluation mode; validation makes them all."""

    none = ThreatModel(rgb=Budget("Linf", 0.0), skeleton=Budget("Linf", 0.0))

    def passes(steps: int) -> int:
        seen = []

        def spy(module, inputs):
            seen.append(module.training)

        train(
            threat=none,
            method="natural",
            val_steps=steps,
            prepare=lambda state: state.model.register_forward_pre_hook(spy),
        )
        return seen.count(False)

    assert passes(5) - passes(2) == 3 * 3  # three steps more in each of three cells
    tight = {"attack": {"steps": 1, "rgb_eps": 1e-6, "skeleton_eps": 1e-6}}
    wide = ThreatModel(rgb=Budget("Linf", 0.5), skeleton=Budget("Linf", 2.0))
    for threat, robust in ((wide, False), (none, True)):
        _, row = train(threat=threat, epochs=4, lr=5e-3, val_steps=5, **tight)
        assert row["val_clean_acc"] > 0.4
        assert (row["val_robust_acc_worst"] == row["val_clean_acc"]) == robust
        assert row["val_robust_acc_worst"] == row["val_robust_acc_both"]


def test_the_score_is_the_worst_cell_and_clean_accuracy_for_natural(
    fresh, section, data, threat
) -> None:
    settings = section(method="natural", epochs=4, lr=5e-3)
    state = fresh(settings)
    list(train_epochs(state, data, settings, threat, seed=0))
    uneven = ThreatModel(rgb=Budget("Linf", 1e-4), skeleton=Budget("Linf", 0.3))
    row = validate(state.model, data.validation(), uneven, steps=5, seed=0)
    cells = [row[f"val_robust_acc_{cell}"] for cell in ("rgb", "skeleton", "both")]
    assert min(cells) < max(cells) <= row["val_clean_acc"]
    assert row["val_robust_acc_worst"] == min(cells) == row["val_robust_acc_both"]
    assert row["score"] == pytest.approx(min(cells) + 1e-4 * row["val_clean_acc"])
    natural = validate(state.model, data.validation(), uneven, steps=5, seed=0, by_clean=True)
    assert natural["score"] == row["val_clean_acc"]


def test_a_rollback_puts_everything_back_and_doubles_the_steps(
    fresh, section, data, threat
) -> None:
    settings = section(epochs=4, lr=5e-3, method="fgsm_rs", val_steps=1, ema=0.5)
    state, saved, rows = fresh(settings), [], []
    for row in train_epochs(state, OtherClasses(data, 2, 2), settings, threat, seed=0):
        parts = (state.model, state.average, state.optimizer)
        saved.append([copy.deepcopy(part.state_dict()) for part in parts])
        rows.append(row)
    assert [row["rolled_back"] for row in rows] == [False, False, True, False]
    assert [row["steps"] for row in rows] == [1, 1, 1, 2]
    (model, average, optimizer), (model2, average2, optimizer2) = saved[1], saved[2]
    for before, after in ((model, model2), (average, average2)):
        assert all(torch.equal(before[k], after[k]) for k in before)
    for index, slots in optimizer["state"].items():
        for slot, value in slots.items():
            assert torch.equal(value, optimizer2["state"][index][slot])
    assert state.position.best == max(
        row["val_robust_acc_worst"] for row in rows if not row["rolled_back"]
    )
    assert any(not torch.equal(model2[k], saved[3][0][k]) for k in model2)


def test_an_epoch_that_fell_behind_is_not_kept_as_best(fresh, section, data, threat) -> None:
    settings = section(epochs=4, lr=5e-3, method="natural", val_steps=1, rollback=False)
    state = fresh(settings)
    rows = list(train_epochs(state, OtherClasses(data, 3, 3), settings, threat, seed=0))
    accuracies = [row["val_clean_acc"] for row in rows]
    assert accuracies[3] < 0.5 < max(accuracies[:3])
    assert state.position.best == max(accuracies)
    assert state.position.best_epoch == 3  # the latest of those that level with the best


def test_progress_and_errors_name_epoch_and_step(fresh, section, data, threat) -> None:
    settings, seen = section(method="natural", epochs=2), []

    def note(p) -> None:
        clips = 8 * p.step
        assert p.clips == clips and float(p.sums[1]) == clips and p.seconds > 0
        seen.append((p.epoch, p.step, p.steps))

    list(train_epochs(fresh(settings), data, settings, threat, seed=0, on_step=note))
    assert seen == [(1, 1, 3), (1, 2, 3), (1, 3, 3), (2, 1, 3), (2, 2, 3), (2, 3, 3)]
    whole = data.train

    def broken(epoch):
        for step, (batch, size) in enumerate(whole(epoch)):
            spoilt = torch.full_like(batch.rgb, float("nan"))
            yield (batch._replace(rgb=spoilt) if (epoch, step) == (1, 2) else batch), size

    data.train = broken
    with pytest.raises(NonFiniteLoss) as caught:
        list(train_epochs(fresh(settings), data, settings, threat, seed=0))
    assert (caught.value.epoch, caught.value.step) == (2, 3)


def test_a_row_tells_what_the_epoch_was(train, data) -> None:
    attack = {"steps": 3, "rgb_eps": 0.02, "skeleton_eps": 0.03}
    _, row = train(method="pgd_at", epochs=2, ramp=0.5, attack=attack)
    assert (row["epoch"], row["steps"], row["val_clips"]) == (2, 3, 12)
    assert (row["rgb_eps"], row["skeleton_eps"]) == pytest.approx((0.02, 0.03))
    _, row = train(method="pgd_at", ramp=1.0, attack=attack)
    assert (row["rgb_eps"], row["skeleton_eps"]) == pytest.approx((0.01, 0.015))
    assert row["clips_per_s"] == pytest.approx(24 / row["train_seconds"])
    assert 0 < row["train_seconds"] < row["seconds"]
    assert 0 <= row["train_clean_acc"] <= 1 and 0 <= row["train_robust_acc"] <= 1


def test_only_so_many_rollbacks_are_made(fresh, section, data, threat) -> None:
    settings = section(epochs=6, lr=5e-3, method="fgsm_rs", val_steps=1)
    rows = list(train_epochs(fresh(settings), OtherClasses(data, 2), settings, threat, seed=0))
    assert [row["rolled_back"] for row in rows] == [False, False, True, True, True, False]
    assert [row["steps"] for row in rows] == [1, 1, 1, 2, 4, 8]


@pytest.mark.parametrize(
    ("robust", "best", "clips", "train_robust", "train_best", "expected"),
    [
        (0.25, 0.5, 1000, 0.5, 0.5, False),  # half is no collapse yet
        (0.24, 0.5, 1000, 0.5, 0.5, True),
        (0.24, 0.5, 1000, 0.4, 0.5, True),  # four fifths of the best still looks fine
        (0.24, 0.5, 1000, 0.39, 0.5, False),
        (0.0, 0.5, 18, 0.5, 0.5, True),  # 3 standard errors: 0.5 > 3 * 0.5 / sqrt(18) = 0.354
        (0.1, 0.5, 20, 0.5, 0.5, True),  # 0.4 > 3 * sqrt((0.09 + 0.25) / 20) = 0.391
        (0.1, 0.5, 19, 0.5, 0.5, False),  # 0.4 < 0.401
        (0.0, 0.5, 0, 0.5, 0.5, False),
        (0.0, 0.0, 100, 0.5, 0.5, False),
    ],
)
def test_where_a_collapse_begins(robust, best, clips, train_robust, train_best, expected) -> None:
    assert collapsed(robust, best, clips, train_robust, train_best) is expected
