"""Training does what its settings say: each test fails on one small break that once went unseen."""

import math
import shutil

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from components.checkpoint import load_model
from components.shards.schema import ShardError
from components.training.averaging import average_buffers, make_average, update_average
from components.training.loop import _advance, train_epochs
from components.training.shard_data import open_data, open_split
from components.training.state import save_state
from components.training.sums import gradient_norms, mean_norms
from tests._support.weights import same_weights


def vector(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def test_the_average_moves_by_its_formula() -> None:
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    average = make_average(model)
    before, target = vector(model), vector(other)
    update_average(average, other, decay=0.75, updates=1000)
    torch.testing.assert_close(vector(average), 0.75 * before + 0.25 * target)
    early = make_average(model)  # 2/11 of the old weights after the first update
    update_average(early, other, decay=0.75, updates=1)
    torch.testing.assert_close(vector(early), (2 * before + 9 * target) / 11)


def test_buffers_of_the_average_are_the_model_s() -> None:
    model = nn.BatchNorm1d(3)
    average = make_average(model)
    model(torch.randn(8, 3) + 5.0)
    update_average(average, model, decay=0.9, updates=100)
    assert torch.equal(average.running_mean, model.running_mean)
    assert int(average.num_batches_tracked) == 1


def test_every_step_moves_the_average(fresh, section, data, threat) -> None:
    train = section(method="natural", ema=0.9, epochs=2)
    state = fresh(train)
    expected, updates = vector(state.average), 0

    def follow(progress) -> None:
        nonlocal expected, updates
        updates += 1
        kept = min(0.9, (1 + updates) / (10 + updates))
        expected = kept * expected + (1 - kept) * vector(state.model)

    list(train_epochs(state, data, train, threat, seed=0, on_step=follow))
    torch.testing.assert_close(vector(state.average), expected)
    assert updates == 2 * data.steps() == state.position.updates


def test_the_averaged_weights_are_validated_and_kept(
    fresh, section, data, threat, tmp_path, model_config
) -> None:
    """A trained average beside a model that is set to answer one class whatever it sees."""
    good = section(method="natural", epochs=4, lr=5e-3)
    trained = fresh(good)
    list(train_epochs(trained, data, good, threat, seed=0))
    # So many updates that the average hardly moves, and steps too small to mend the model.
    train = section(method="natural", epochs=1, lr=1e-30, ema=0.999999)
    state = fresh(train)
    state.average.load_state_dict(trained.model.state_dict())
    state.position.updates = 10**9
    (row,) = train_epochs(state, data, train, threat, seed=0)
    plain = section(method="natural", epochs=1, lr=1e-30)
    (raw,) = train_epochs(fresh(plain), data, plain, threat, seed=0)
    assert row["val_clean_acc"] > 0.6 > raw["val_clean_acc"]
    save_state(tmp_path / "best", state, model_config)
    kept, _ = load_model(tmp_path / "best")
    assert same_weights(kept, state.average) and not same_weights(kept, state.model)


def test_each_step_is_taken_at_the_rate_of_one_cycle(fresh, section, data, threat) -> None:
    train = section(method="natural", epochs=4, lr=1e-3)
    state, seen = fresh(train), []

    def note(progress) -> None:
        rates = {group["lr"] for group in state.optimizer.param_groups}
        assert len(rates) == 1
        seen.append(rates.pop())

    rows = list(train_epochs(state, data, train, threat, seed=0, on_step=note))
    steps = 4 * data.steps()

    def rate(done: float) -> float:
        if done < 0.3:
            return 0.04 + 0.96 * (1 - math.cos(math.pi * done / 0.3)) / 2
        return 1e-4 + (1 - 1e-4) * (1 + math.cos(math.pi * (done - 0.3) / 0.7)) / 2

    assert seen == pytest.approx([1e-3 * rate(i / steps) for i in range(steps)])
    assert [row["lr"] for row in rows] == seen[data.steps() - 1 :: data.steps()]


def clips_of(data, epoch: int) -> dict:
    """Pixels and joints by clip id, in the order in which the epoch brings them."""
    found = {}
    for batch, _ in data.train(epoch):
        for i, name in enumerate(batch.clip_id):
            found[name] = (batch.rgb[i], batch.skeleton[i])
    return found


def test_damaged_shards_are_noticed_before_training(settings, shards, tmp_path) -> None:
    """By the driver, for all: its workers open the same files without reading them through."""
    folder = tmp_path / "shards"
    shutil.copytree(shards, folder)
    assert open_split(settings(), str(folder))[1].classes
    damaged = sorted(p for p in folder.glob("*.arrow") if p.name != "clips.arrow")[0]
    body = bytearray(damaged.read_bytes())
    body[len(body) // 2] ^= 1
    damaged.write_bytes(bytes(body))
    with pytest.raises(ShardError, match=damaged.name):
        open_split(settings(), str(folder))
    open_split(settings(), str(folder), verify=False)


def test_every_epoch_has_its_own_order_and_augmentation(settings, shards) -> None:
    config = settings()
    data, _ = open_data(config, shards)
    first, again, second = (clips_of(data, epoch) for epoch in (0, 0, 1))
    assert list(first) == list(again) != list(second)
    assert first.keys() == second.keys()
    changed = [not torch.equal(first[name][1], second[name][1]) for name in first]
    assert sum(changed) > 0.9 * len(changed)
    for name in first:
        assert torch.equal(first[name][0], again[name][0])
    moved = [not torch.equal(first[name][0], second[name][0]) for name in first]
    assert sum(moved) > 0.5 * len(moved)


def test_validation_sees_the_held_out_clips_as_they_are(settings, shards) -> None:
    config = settings()
    workers = [open_data(config, shards, rank=rank, world=2)[0] for rank in (0, 1)]
    trained = {name for data in workers for batch, _ in data.train(0) for name in batch.clip_id}
    parts = [[batch for batch in data.validation()] for data in workers]
    seen = [name for part in parts for batch in part for name in batch.clip_id]
    assert {name[8:12] for name in seen} == {"P002"}
    assert {name[8:12] for name in trained} == {"P001", "P003", "P004"}
    assert len(seen) == len(set(seen)) == 16  # every clip once, on one worker
    calm = settings(train__augment=False)
    unchanged = [clips_of(open_data(calm, shards)[0], epoch) for epoch in (0, 1)]
    for name in unchanged[0]:
        assert torch.equal(unchanged[0][name][1], unchanged[1][name][1])
    plain = list(open_data(calm, shards)[0].validation())
    joints = {n: b.skeleton[i] for b in plain for i, n in enumerate(b.clip_id)}
    for part in parts:
        for batch in part:
            for i, name in enumerate(batch.clip_id):
                assert torch.equal(batch.skeleton[i], joints[name])


def test_batch_statistics_are_the_mean_over_workers(tmp_path) -> None:
    def work(rank: int) -> None:
        dist.init_process_group(
            "gloo", init_method=f"file://{tmp_path}/meet", rank=rank, world_size=2
        )
        model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(3))
        for norm in model:
            norm.running_mean.fill_(1.0 + 2.0 * rank)
            norm.running_var.fill_(4.0 * rank)
        average_buffers(model)
        found = [float(x) for norm in model for x in (*norm.running_mean, *norm.running_var)]
        (tmp_path / f"found{rank}").write_text(repr(found))
        dist.destroy_process_group()

    mp.start_processes(work, nprocs=2, start_method="fork")
    for rank in (0, 1):
        found = (tmp_path / f"found{rank}").read_text()
        assert found == repr([2.0] * 4 + [2.0] * 6)


def test_a_limit_of_validation_clips_is_drawn_once_for_all_workers(settings, shards) -> None:
    def names(seed: int, limit: int) -> list[str]:
        config = settings(train__val_clips=limit, seed=seed)
        workers = [open_data(config, shards, rank=rank, world=2)[0] for rank in (0, 1)]
        return [n for data in workers for batch in data.validation() for n in batch.clip_id]

    five = names(0, 5)
    assert len(set(five)) == len(five) == 5 and sorted(five) == sorted(names(0, 5))
    assert set(five) < set(names(0, 0)) and len(names(0, 0)) == 16
    assert any(set(five) != set(names(seed, 5)) for seed in (1, 2, 3))


def test_workers_share_every_global_batch(settings, shards) -> None:
    alone, _ = open_data(settings(), shards)
    workers = [open_data(settings(), shards, rank=rank, world=2)[0] for rank in (0, 1)]
    for (whole, size), *parts in zip(alone.train(1), *(w.train(1) for w in workers), strict=True):
        names = [name for part, _ in parts for name in part.clip_id]
        assert names == list(whole.clip_id) and len(set(names)) == size == 8
        assert {told for _, told in parts} == {8}


def test_gradient_norms_are_those_of_each_stream_after_a_step() -> None:
    model = _Streams()
    like = torch.zeros(1, dtype=torch.float64)
    assert gradient_norms(model, like).tolist() == [0.0, 0.0, 1.0]
    for value, name in ((2.0, "rgb"), (3.0, "skeleton")):
        for parameter in getattr(model, name).parameters():
            parameter.grad = torch.full_like(parameter, value)
    found = gradient_norms(model, like).tolist()
    assert found == pytest.approx([2 * 8**0.5, 3 * 10**0.5, 1.0])
    assert mean_norms([2.0, 6.0, 4.0]) == {"rgb_grad": 0.5, "skeleton_grad": 1.5}
    assert mean_norms([0.0, 0.0, 0.0]) == {"rgb_grad": None, "skeleton_grad": None}


class _Streams(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rgb, self.skeleton = nn.Linear(3, 2), nn.Linear(4, 2)


def test_an_epoch_that_was_rolled_back_ranks_by_its_score(fresh, section) -> None:
    """It is no candidate for the last good one, however well it looks."""
    state = fresh(section())
    row = {
        "epoch": 1, "score": 0.75, "rolled_back": True, "val_clips": 24, "val_clean_acc": 0.75,
        "val_robust_acc_worst": 0.75, "train_robust_acc": 0.9,
    }  # fmt: skip
    _advance(state, row, natural=False)
    assert row["rank"] == 0.75 and state.position.epoch == 1
    assert state.position.best != 0.75 and state.position.train_best != 0.9
    again = {**row, "epoch": 2, "rolled_back": False}
    _advance(state, again, natural=False)
    assert again["rank"] == 3.0 and state.position.best == 0.75
