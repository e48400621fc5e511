"""The small parts of training against their formulas, and what must not move between versions."""

import ctypes
import json
import math
import platform
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from components.attacks import ThreatModel
from components.batch import ModelOutput
from components.training import losses, memory, stacking
from components.training.layout import channels_last, channels_last_video
from components.training.loop import _roll_back, train_epochs
from components.training.methods import METHODS, InnerProblem
from components.training.schedule import draw_cell, epoch_seed, lr_factor, seed_step
from components.training.shard_data import ShardData
from components.training.state import Position, load_state, new_state, save_state, snapshot
from components.training.step import StepResult, TrainTarget, train_step
from components.training.sums import as_sums, averages_of, probe
from components.training.validation import validate
from tests._support.train import train_settings


def test_the_seeds_of_a_run_are_those_of_every_run_before() -> None:
    """Runs of earlier versions are resumed and compared; another number is another run."""
    assert [epoch_seed(s, e) for s, e in ((0, 0), (0, 1), (3, 7))] == [
        1064031705439591173, 2111806259437684440, 8029292651897739358,
    ]  # fmt: skip
    seed_step(2, 3, 5, 1)
    assert torch.initial_seed() == 515233770188903147
    cells = [draw_cell("mix", 1, 2, step)[0] for step in range(24)]
    assert "".join(cells) == "srrbbsrrbsrbrbrbrbbbbbrs"


@pytest.mark.parametrize("done", [0.0, 0.1, 0.29, 0.31, 0.65, 0.99, 1.0, 1.2])
def test_rates_follow_one_cycle_and_a_cosine(done) -> None:
    part = done / 0.3 if done < 0.3 else min((done - 0.3) / 0.7, 1.0)
    rise = (1 - math.cos(math.pi * part)) / 2
    expected = 0.04 + 0.96 * rise if done < 0.3 else 1 - (1 - 1e-4) * rise
    assert lr_factor(done) == pytest.approx(expected)
    assert stacking.lr(done) == pytest.approx(0.025 * (1 + math.cos(math.pi * min(done, 1.0))))


def test_the_weights_between_the_streams_learn_from_a_smooth_error(fresh, section, clips) -> None:
    """Sigmoid of twice the margin of the best wrong class, per clip."""
    model = fresh(section()).model.eval()
    terms = stacking.minimise(model, clips, clips._replace(rgb=1 - clips.rgb), section())
    logits = model(1 - clips.rgb, clips.skeleton, clips.present).logits
    for i, y in enumerate(clips.label.tolist()):
        wrong = max(float(logits[i, k].detach()) for k in range(3) if k != y)
        margin = wrong - float(logits[i, y].detach())
        assert float(terms.loss[i].detach()) == pytest.approx(1 / (1 + math.exp(-2 * margin)))
    torch.testing.assert_close(terms.robust, logits)
    assert terms.clean is None and stacking.settings_of(section(accumulate=3)).accumulate == 1


def test_losses_stay_finite_and_go_by_the_half_of_their_clips() -> None:
    sure = torch.tensor([[0.0, 60.0, 0.0]])
    label = torch.tensor([0])
    expected = 60.0 - math.log(1e-6) + 6.0 * 0.0
    assert float(losses.mart(sure, sure, label, 6.0)) == pytest.approx(expected, rel=1e-2)
    rows = torch.arange(8.0).reshape(4, 2)
    output = ModelOutput(rows, {"rgb": rows + 1}, {"logits": rows + 2}, {"rgb": rows + 3})
    for part, at in zip(losses.halves(output), (slice(0, 2), slice(2, 4)), strict=True):
        assert torch.equal(part.logits, rows[at]) and torch.equal(part.aux["rgb"], rows[at] + 1)
        assert torch.equal(part.weights["logits"], rows[at] + 2)
        assert torch.equal(part.features["rgb"], rows[at] + 3)
    bare = losses.auxiliary(output._replace(aux={}), torch.tensor([0, 1, 0, 1]))
    assert torch.equal(bare, torch.zeros(4))
    both = losses.auxiliary(output._replace(aux={"a": rows, "b": -rows}), torch.zeros(4).long())
    one, other = (math.log(1 + math.e), math.log(1 + 1 / math.e))
    torch.testing.assert_close(both, torch.full((4,), (one + other) / 2))


def test_sums_of_an_epoch_become_means_over_what_was_seen() -> None:
    like = torch.ones(3, dtype=torch.float64)
    result = StepResult(torch.tensor(2.5), torch.tensor(3), torch.tensor(4), 9, 5, 6)
    assert as_sums(result, like).tolist() == [2.5, 9.0, 3.0, 5.0, 4.0, 6.0]
    assert averages_of([2.5, 10.0, 3.0, 5.0, 4.0, 8.0]) == {
        "loss": 0.25, "train_clean_acc": 0.5, "train_robust_acc": 0.6,
    }  # fmt: skip
    assert averages_of([3.0, 0.0, 0.0, 0.0, 0.0, 0.0]) == {
        "loss": 3.0, "train_clean_acc": None, "train_robust_acc": None,
    }  # fmt: skip


def test_a_probe_counts_clips_right_in_evaluation_mode(fresh, section, clips) -> None:
    model = fresh(section()).model.train()
    label = model.eval()(*clips[:3]).logits.argmax(1)
    model.train()
    label[:5] = (label[:5] + 1) % 3
    assert probe(model, clips._replace(label=label)).tolist() == [19.0, 24.0]
    assert model.training


def test_steps_of_an_attack_double_with_every_rollback(clips) -> None:
    problem = InnerProblem(nn.Identity(), clips, ThreatModel(), train_settings(steps=3), 0, 2)
    assert (problem.steps(), problem.steps(own=1)) == (12, 4)
    told = {name: (m.attack_steps(train_settings(steps=3), 1), m.passes(train_settings(steps=3)))
            for name, m in METHODS.items()}  # fmt: skip
    assert told == {
        "natural": (6, 1), "pgd_at": (6, 1), "trades": (6, 1), "mart": (6, 1),
        "fgsm_rs": (2, 1), "nfgsm": (2, 1), "free": (6, 3),
    }  # fmt: skip


def test_looks_at_gradients_and_clean_accuracy_come_every_sixteen_steps(
    fresh, section, data, threat, monkeypatch
) -> None:
    looks: dict[str, list[int]] = {"probe": [], "gradient_norms": []}
    train = section(method="fgsm_rs", epochs=1, val_steps=1)
    state, few = fresh(train), data.clips.select(torch.arange(2))
    many = SimpleNamespace(
        steps=lambda: 34, train=lambda epoch: [(few, 2)] * 34, validation=data.validation
    )
    for name, found in (("probe", torch.ones(2)), ("gradient_norms", torch.ones(3))):

        def look(*args, name=name, found=found):
            looks[name].append(state.position.updates)
            return found.double()

        monkeypatch.setattr(f"components.training.loop.{name}", look)
    (row,) = train_epochs(state, many, train, threat, seed=0)
    assert looks == {"probe": [0, 16, 32], "gradient_norms": [1, 17, 33]}
    assert row["rgb_grad"] == row["skeleton_grad"] == row["train_clean_acc"] == 1.0


def test_of_two_workers_each_divides_by_its_share_and_looks_once_for_unused_parameters(
    fresh, section, data, threat, monkeypatch
) -> None:
    """As with two processes, of which only this one runs: what it hands to the step and to DDP."""
    seen: dict[str, list] = {"unused": [], "wrapped": [], "divisor": []}

    def has_unused(model, batch, train):
        seen["unused"].append((batch.size, [p.requires_grad for p in model.stacked()]))
        return True

    def wrap(model, device, unused):
        seen["wrapped"].append(unused)
        return model

    def step(*args, loss_divisor, **rest):
        seen["divisor"].append(loss_divisor)
        return train_step(*args, loss_divisor=loss_divisor, **rest)

    for name, fake in (("has_unused", has_unused), ("wrap", wrap), ("train_step", step)):
        monkeypatch.setattr(f"components.training.loop.{name}", fake)
    monkeypatch.setattr("components.training.loop.world_size", lambda: 2)
    train = section(method="natural", epochs=2, stack_epochs=1, val_steps=1)
    state = fresh(train)
    list(train_epochs(state, data, train, threat, seed=0))
    assert seen["unused"] == [(8, [False, False])]
    assert seen["wrapped"] == [True, True, False]
    assert seen["divisor"] == [4.0] * 6 + [3.0] * 2
    list(
        train_epochs(state, data, train, threat, seed=0)
    )  # at its end: there is nothing to look at
    assert len(seen["unused"]) == 1


def test_workers_meet_in_the_last_part_of_a_step_alone(
    fresh, section, clips, threat, monkeypatch
) -> None:
    apart = []

    def no_sync(wrapped):
        apart.append(wrapped)
        return torch.enable_grad()

    monkeypatch.setattr("components.training.step._no_sync", no_sync)
    state = fresh(section())
    target = TrainTarget(state.model, state.model, state.optimizer)
    result = train_step(
        target, clips, threat, train_settings(method="natural", accumulate=3), seed=0
    )
    assert apart == [state.model] * 2
    assert (result.clips, result.robust_seen, result.clean_seen) == (24, 0, 24)


def test_a_saved_state_has_the_format_that_others_read(
    fresh, section, tmp_path, model_config
) -> None:
    state = fresh(section())
    assert state.average is None and state.deployed is state.model
    save_state(tmp_path, state, model_config)
    page = json.loads((tmp_path / "state.json").read_text())
    assert page["format"] == 1 and page["position"] == {
        "epoch": 0, "updates": 0, "boost": 0, "best": 0.0, "best_score": -1.0, "best_epoch": 0,
        "train_best": 0.0, "history": [],
    }  # fmt: skip
    assert [group["weight_decay"] for group in page["groups"]] == [5e-4, 0.0]
    (tmp_path / "state.json").write_text(json.dumps({**page, "format": 2}))
    with pytest.raises(ValueError, match="format 2, not 1"):
        load_state(tmp_path, state)
    assert new_state(nn.Linear(2, 2), lr=1.0, ema=0.5).position == Position()


def test_videos_and_their_weights_alone_change_their_layout(clips) -> None:
    net = nn.Sequential(nn.Conv3d(2, 3, 3), nn.Conv2d(2, 3, 3))
    before = [p.clone() for p in net.parameters()]
    assert channels_last(net) is net
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    last = torch.channels_last_3d
    assert net[0].weight.is_contiguous(memory_format=last) and not net[0].weight.is_contiguous()
    assert net[1].weight.is_contiguous()
    video = channels_last_video(clips)
    assert video.rgb.is_contiguous(memory_format=last) and torch.equal(video.rgb, clips.rgb)
    assert video.skeleton is clips.skeleton


def test_glibc_is_told_to_keep_a_gigabyte_and_takes_blocks_of_32_mib(monkeypatch) -> None:
    """M_TRIM_THRESHOLD is -1 and M_MMAP_THRESHOLD -3 in its malloc.h; 32 MiB is its largest."""
    told: list[tuple[int, int]] = []
    answers = [1, 1]

    def mallopt(name: int, value: int) -> int:
        told.append((name, value))
        return answers[len(told) - 1]

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    assert memory.keep_freed_memory() is True
    assert told == [(-1, 2**30), (-3, 32 * 2**20)]
    for told_off in ([0, 1], [1, 0]):
        answers[:] = told_off
        told.clear()
        assert memory.keep_freed_memory() is False
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1"))
    told.clear()
    assert memory.keep_freed_memory() is False and not told
    assert memory.ONE_ARENA == {"MALLOC_ARENA_MAX": "1"}


@pytest.mark.parametrize(
    ("train", "held", "batch", "steps"), [(80, 33, 16, (5, 2)), (81, 32, 16, (6, 1)),
                                          (5, 7, 16, (1, 1)), (16, 65, 16, (1, 3))],
)  # fmt: skip
def test_steps_of_an_epoch_cover_all_clips(train, held, batch, steps) -> None:
    """Over all workers 32 clips make a step on the held-out ones; a small set is one step."""
    data = ShardData([0] * train, [], [0] * held, batch, 0, 0, 1, "cpu")
    assert (data.steps(), data.held_out_steps()) == steps
    assert data.global_size == min(train, batch)


def test_validation_adds_up_clips_over_batches(fresh, section, data, threat) -> None:
    state = fresh(section(epochs=1))
    whole = data.validation()[0]
    parts = [whole.select(torch.arange(5)), whole.select(torch.arange(5, 12))]
    one, two = (
        validate(state.model, batches, threat, steps=1, seed=0) for batches in ([whole], parts)
    )
    accuracies = [key for key in one if "acc" in key or key == "score"]
    assert len(accuracies) > 5 and all(one[key] == two[key] for key in accuracies)
    assert one["val_clips"] == two["val_clips"] == 12
    alone = validate(state.model, [whole], threat.cell("rgb"), steps=1, seed=0)
    assert alone["val_robust_acc_worst"] == alone["val_robust_acc_rgb"]
    assert "val_robust_acc_both" not in alone


def test_validation_goes_by_64_clips_in_the_order_of_the_shards(monkeypatch) -> None:
    """What a stream relies on is measured among the clips of one batch, and compared over runs."""
    asked = []
    monkeypatch.setattr(
        "components.training.shard_data.BatchLoader",
        lambda clips, batches, **rest: asked.extend(map(list, batches)) or [],
    )
    list(ShardData([], [0] * 130, [], 16, 0, 0, 1, "cpu").validation())
    assert asked == [list(range(64)), list(range(64, 128)), [128, 129]]


@pytest.mark.parametrize(("right", "expected"), [(0.5, True), (0.0, False), (None, False)])
def test_only_while_training_looks_fine_a_fall_is_rolled_back(fresh, section, right, expected):
    """A training attack that fools every clip is strong enough; so is one that nobody counts."""
    state = fresh(section())
    state.position.best, state.position.train_best = 0.9, 0.5
    row = {"val_robust_acc_worst": 0.1, "val_clips": 100, "train_robust_acc": right}
    assert _roll_back(state, snapshot(state), row) is expected
    assert state.position.boost == int(expected)
