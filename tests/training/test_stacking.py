"""The last part of a run: weights between the streams, fitted on clips that those have not seen."""

import pytest
import torch

from components.attacks import ThreatModel
from components.checkpoint import load_model
from components.training import stacking
from components.training.loop import train_epochs
from components.training.state import load_state, save_state
from tests.training.conftest import make_clips


def _split(state):
    """(the weights of the streams, those that are stacked), as copies."""
    own = {id(p) for p in state.model.stacked()}
    streams = [p.detach().clone() for p in state.model.parameters() if id(p) not in own]
    return streams, [p.detach().clone() for p in state.model.stacked()]


def _same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_first_the_streams_then_the_weights(fresh, section, data, threat) -> None:
    train = section(epochs=2, stack_epochs=2, ema=0.5)
    state = fresh(train)
    seen = []
    for row in train_epochs(state, data, train, threat, seed=0):
        seen.append((_split(state), [b.detach().clone() for b in state.model.buffers()], row))
    assert [row["epoch"] for *_, row in seen] == [1, 2, 3, 4]
    (first, _, _), (second, statistics, _), (third, later, row), (fourth, last, _) = seen
    assert not _same(first[0], second[0]) and _same(first[1], second[1])
    assert all(not p.any() for p in second[1])  # the mean, until the held-out clips
    # The averaged weights, which are the ones deployed, take the place of the others and stay.
    assert _same(third[0], fourth[0]) and not _same(second[0], third[0])
    assert not _same(second[1], third[1]) and not _same(third[1], fourth[1])
    assert all(torch.equal(a, b) for a, b in zip(later, last, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(statistics, later, strict=True))
    assert row["steps"] == 5 and row["rgb_eps"] == pytest.approx(8 / 255)
    assert row["train_clean_acc"] is None and 0 <= row["train_robust_acc"] <= 1
    assert _same([p.detach() for p in state.model.parameters()], list(state.average.parameters()))


def test_only_held_out_clips_decide_the_weights(fresh, section, data, threat) -> None:
    train = section(epochs=1, stack_epochs=1)
    asked = []
    wrapped = data.train

    def counted(epoch):
        asked.append(epoch)
        return wrapped(epoch)

    data.train = counted
    state = fresh(train)
    list(train_epochs(state, data, train, threat, seed=0))
    assert asked == [0]
    other = fresh(train)
    data.validated = make_clips(12, seed=5)
    list(train_epochs(other, data, train, threat, seed=0))
    assert _same(_split(state)[0], _split(other)[0])
    assert not _same(_split(state)[1], _split(other)[1])


def test_a_fusion_without_such_weights_has_no_such_epochs(section, threat) -> None:
    train = section(epochs=2, stack_epochs=5)
    assert stacking.epochs_of(torch.nn.Linear(2, 2), train) == 0


def test_every_cell_and_clean_clips_come_up_in_turn(threat) -> None:
    drawn = [set(stacking.threat_of_step(threat, step, natural=False).budgets) for step in range(4)]
    assert drawn == [set(), {"rgb"}, {"skeleton"}, {"rgb", "skeleton"}]
    assert not any(stacking.threat_of_step(threat, step, natural=True).budgets for step in range(4))
    video = ThreatModel(rgb=threat.rgb)
    assert [set(stacking.threat_of_step(video, s, natural=False).budgets) for s in range(3)] == [
        set(), {"rgb"}, set(),
    ]  # fmt: skip


def test_the_attacker_sees_through_the_weights(fresh, section, data, threat) -> None:
    """Examples move with the weights that are being fitted, or these would never be tested."""
    state = fresh(section())
    problem = stacking.InnerProblem(state.model, data.validated, threat, section(), seed=0)
    one = stacking.craft(problem)
    state.model.merge.attention.bias.data.copy_(torch.tensor([6.0, -6.0]))
    assert (stacking.craft(problem).skeleton - one.skeleton).abs().max() > 0.01
    clean = stacking.craft(problem._replace(threat=ThreatModel()))
    assert clean is data.validated


def test_a_stream_that_knows_nothing_loses_its_weight(fresh, section, data, threat) -> None:
    train = section(epochs=6, stack_epochs=12, method="natural")
    state = fresh(train)
    noise = torch.rand(data.clips.rgb.shape, generator=torch.Generator().manual_seed(3))
    data.clips = data.clips._replace(rgb=noise)
    data.validated = data.validated._replace(rgb=noise[: data.validated.size])
    list(train_epochs(state, data, train, threat, seed=0))
    batch = data.validated
    with torch.no_grad():
        weights = state.deployed.eval()(batch.rgb, batch.skeleton, batch.present).weights
    assert weights["logits"][:, 0].mean() < 0.45


def test_resumed_between_and_within_the_parts_it_is_bit_equal(
    fresh, section, data, threat, tmp_path, model_config
) -> None:
    train = section(epochs=2, stack_epochs=3, ema=0.5)
    whole = fresh(train)
    list(train_epochs(whole, data, train, threat, seed=0))
    for stop in (2, 4):
        cut = fresh(train)
        rows = train_epochs(cut, data, train, threat, seed=0)
        for _ in range(stop):
            next(rows)
        save_state(tmp_path / str(stop), cut, model_config)
        resumed = fresh(train, seed=9)
        load_state(tmp_path / str(stop), resumed)
        list(train_epochs(resumed, data, train, threat, seed=0))
        assert _same(whole.model.parameters(), resumed.model.parameters())
        assert _same(whole.average.parameters(), resumed.average.parameters())
    model, _ = load_model(tmp_path / "4")
    assert any(p.abs().sum() > 0 for p in model.stacked())
