"""The feasible set, the losses, and the record of what was found, against their definitions."""

import numpy as np
import pytest
import torch

from components.attacks import Budget, Counter, ThreatModel
from components.attacks.best import Best
from components.attacks.counter import count
from components.attacks.eot import Averaged
from components.attacks.losses import LOSSES, dlr_targeted, soft_margin, spread_of, target_margin
from components.attacks.region import _largest_frames, _round_down, coarse_uniform, rescale
from components.batch import Batch
from components.errors import UserError
from components.seeds import clip_seeds


def pixels(size: int, shape=(3, 1, 1, 1), value: float = 0.5) -> Batch:
    return Batch(
        torch.full((size, *shape), value),
        torch.zeros(size, 3, 4, 25, 2),
        torch.ones(size, 4, 2, dtype=torch.bool),
        torch.zeros(size, dtype=torch.int64),
        tuple(f"c{i}" for i in range(size)),
    )


def test_a_start_in_l2_is_uniform_in_the_ball() -> None:
    """In three dimensions the cube of the radius is uniform, and no direction is preferred."""
    batch = pixels(2000)
    threat = ThreatModel(Budget("L2", 0.3))
    rgb, _ = threat.random_start(batch, {"rgb": clip_seeds(0, batch.clip_id, "x")})
    change = (rgb - 0.5).flatten(1).numpy() / 0.3
    cubes = np.sort(np.linalg.norm(change, axis=1) ** 3)
    assert np.abs(cubes - np.linspace(0, 1, 2000)).max() < 0.04
    assert np.abs(change.mean(0)).max() < 0.04
    assert np.abs(change.T @ change / 2000 - np.eye(3) / 5).max() < 0.02
    along, length = change[:, 0] / np.linalg.norm(change, axis=1), np.linalg.norm(change, axis=1)
    assert abs(np.corrcoef(np.abs(along), length)[0, 1]) < 0.08


def test_a_start_in_linf_takes_each_of_256_places_as_often() -> None:
    seeds = clip_seeds(0, [f"c{i}" for i in range(50)], "x")
    drawn = coarse_uniform(seeds, (3, 7, 31))
    assert drawn.shape == (50, 3, 7, 31)  # no multiple of four
    places = (drawn.double() + 1) * 128 - 0.5
    assert torch.equal(places, places.round())
    found = torch.bincount(places.flatten().long(), minlength=256)
    assert len(found) == 256 and 60 < int(found.min()) and int(found.max()) < 190
    flat = drawn.flatten(1).numpy()
    for lag in (1, 2, 4):
        assert abs(np.corrcoef(flat[:, :-lag].ravel(), flat[:, lag:].ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("eps", [0.1, 0.3, 0.7, 0.25, 8 / 255, 0.0])
def test_an_eps_is_the_largest_number_of_32_bits_that_does_not_exceed_it(eps) -> None:
    found = np.float32(_round_down(eps))
    assert float(found) <= eps < float(np.nextafter(found, np.float32(9)))


@pytest.mark.parametrize("eps", [0.1, 1e-5])
@pytest.mark.parametrize("bounds", [(None, None), (-4.0, 4.0), (-1.0, None), (None, 5.0)])
def test_the_box_reaches_the_edge_of_budget_and_bounds(eps, bounds) -> None:
    batch = pixels(2, (3, 2, 4, 4))
    draw = torch.Generator().manual_seed(0)
    batch = batch._replace(skeleton=torch.randn(2, 3, 4, 25, 2, generator=draw))
    low, high, mask = ThreatModel(skeleton=Budget("Linf", eps, *bounds)).region(batch).limits(
        "skeleton"
    )  # fmt: skip
    assert mask is not None and bool(mask.all())
    x = batch.skeleton.double()
    least = x - eps if bounds[0] is None else torch.minimum((x - eps).clamp(min=bounds[0]), x)
    most = x + eps if bounds[1] is None else torch.maximum((x + eps).clamp(max=bounds[1]), x)
    assert (low.double() >= least).all() and (high.double() <= most).all()
    torch.testing.assert_close(low.double(), least, rtol=0, atol=1e-6)
    torch.testing.assert_close(high.double(), most, rtol=0, atol=1e-6)


def test_frames_of_largest_change_are_kept_and_of_equal_ones_the_first() -> None:
    change = torch.zeros(3, 3, 5, 2, 2)
    change[0, 1, :, 0, 1] = torch.tensor([1.0, -3.0, 2.0, 0.0, 3.0])
    change[1, :, :, 1, 1] = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0])
    change[2, 0, :, 0, 0] = torch.tensor([0.0, 2.0, -2.0, 2.0, -2.0])
    keep = _largest_frames(change, 2)
    assert keep.shape == (3, 1, 5, 1, 1)
    assert [row.nonzero().flatten().tolist() for row in keep[:, 0, :, 0, 0]] == [
        [1, 4], [0, 1], [1, 2],
    ]  # fmt: skip


def test_rescaling_makes_each_clip_as_long_as_asked_and_leaves_zeros() -> None:
    change = torch.randn(3, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    change[1] = 0
    kept = change.clone()
    lengths = rescale(change.clone(), torch.tensor([1.0, 2.0, 3.0])).flatten(1).norm(dim=1)
    assert lengths.tolist() == pytest.approx([1.0, 0.0, 3.0], rel=1e-5)
    half = rescale(change.clone(), 0.5)
    torch.testing.assert_close(half[2], kept[2] * 0.5 / kept[2].norm())


def moved(batch: Batch, **change: torch.Tensor) -> Batch:
    return batch._replace(**change)


def test_what_a_check_lets_pass_is_rounding_and_no_more() -> None:
    batch = pixels(1, (3, 2, 2, 2))
    l2 = ThreatModel(Budget("L2", 0.1))
    still = torch.zeros_like(batch.skeleton)
    still[:, 0] = torch.arange(25.0)[:, None]  # every bone lies along x
    body = batch._replace(skeleton=still)
    for over, fine in ((5e-7, True), (3e-6, False)):
        rgb = batch.rgb.double()
        rgb[0, 0, 0, 0, 0] += 0.1 + over
        held(l2, batch, moved(batch, rgb=rgb), fine)
    bent = ThreatModel(skeleton=Budget("Linf", 9.0), acceleration=0.1)
    for over, fine in ((1e-6, True), (5e-6, False)):
        x = body.skeleton.double()
        x[0, 2, 1, 3, 0] += (0.1 + over) / 2
        held(bent, body, moved(body, skeleton=x), fine)
    long = ThreatModel(skeleton=Budget("Linf", 9.0), bone_length=0.1)
    for over, fine in ((5e-5, True), (3e-4, False)):
        x = body.skeleton.double()
        x[0, 0] = x[0, 0] * (1.1 + over)
        held(long, body, moved(body, skeleton=x), fine)


def held(threat: ThreatModel, clean: Batch, changed: Batch, fine: bool) -> None:
    if fine:
        threat.check(clean, changed)
    else:
        with pytest.raises(UserError, match=r"project with ThreatModel\.project first"):
            threat.check(clean, changed)


def test_which_budgets_make_sense() -> None:
    assert ThreatModel(Budget("Linf", 1.0)).rgb.high == 1.0
    assert ThreatModel(Budget("Linf", 1.5, -1.0, 1.0)).rgb.low == -1.0
    assert ThreatModel(Budget("L2", 9.0)).rgb.eps == 9.0
    assert Budget("Linf", 0.1, low=0.0).high is None and Budget("L2", 0.1, frames=1).frames == 1
    for wrong in (
        lambda: ThreatModel(Budget("Linf", 1.01)),
        lambda: ThreatModel(Budget("Linf", 2.1, -1.0, 1.0)),
        lambda: Budget("Linf", float("inf")),
        lambda: Budget("Linf", 0.1, 1.0, 1.0),
        lambda: ThreatModel(acceleration=float("inf")),
        lambda: ThreatModel(bone_length=-0.1),
        lambda: ThreatModel(acceleration=0.0),
    ):
        with pytest.raises(UserError):
            wrong()


def test_losses_are_those_of_their_formulas() -> None:
    draw = torch.Generator().manual_seed(3)
    for classes in (2, 3, 4, 7):
        logits, label = torch.randn(16, classes, generator=draw) * 2, torch.arange(16) % classes
        target = (label + 1) % classes
        found = {name: loss(logits, label) for name, loss in LOSSES.items()}
        aimed = dlr_targeted(logits, label, target)
        sharp = soft_margin(logits, label, torch.full((16,), 1.7))
        for i in range(16):
            z = logits[i].double().numpy()
            y, t, order = int(label[i]), int(target[i]), np.sort(z)[::-1]
            others = np.delete(z, y)
            margin, spread = others.max() - z[y], max(others.std(), 1e-6)
            close = lambda x: pytest.approx(x, rel=1e-4, abs=1e-5)  # noqa: E731
            assert float(found["ce"][i]) == close(np.log(np.exp(z).sum()) - z[y])
            assert float(found["margin"][i]) == close(margin)
            wrong = torch.tensor(z).float()[None].clone()
            wrong[0, y] = -torch.inf
            assert float(spread_of(wrong)) == close(spread)
            if classes > 2:
                b = 4 / spread
                soft = np.log(np.exp(b * (others - others.max())).sum()) / b + margin
                assert float(found["soft_margin"][i]) == close(soft)
            assert float(sharp[i]) == close(np.log(np.exp(1.7 * others).sum()) / 1.7 - z[y])
            assert float(target_margin(logits, label, target)[i]) == close(z[t] - z[y])
            ratio = margin / (order[0] - order[2]) if classes > 2 else margin
            assert float(found["dlr"][i]) == close(ratio)
            if classes > 2:
                below = order[0] - order[2:4].mean()
                assert float(aimed[i]) == close((z[t] - z[y]) / below)
            else:
                assert float(aimed[i]) == close(z[t] - z[y])


def test_the_record_of_the_best_follows_its_rules_clip_by_clip() -> None:
    """See `Best`: what was seen to fool stays; then ends that nobody saw; then highest value."""
    draw = torch.Generator().manual_seed(0)
    size, label = 40, torch.zeros(40, dtype=torch.int64)
    records, expected = [], []
    for _ in range(2):
        record = Best({"rgb": torch.zeros(size, 1, 1, 1, 1)}, label)
        rows = [{"x": 0.0, "value": -np.inf, "offered": -np.inf, "done": False} for _ in label]
        for turn in range(1, 8):
            x = torch.full((size, 1, 1, 1, 1), float(turn))
            value = torch.randint(-3, 3, (size,), generator=draw).float()
            hit = torch.rand(size, generator=draw) < 0.1
            logits = torch.stack([1 - 2.0 * hit, 0 * value], 1)
            end = turn in (3, 6)
            record.offer({"rgb": x}, value) if end else record.see({"rgb": x}, logits, value)
            for row, v, h in zip(rows, value.tolist(), hit.tolist(), strict=True):
                none = row["offered"] == -np.inf
                if row["done"]:
                    continue
                if end and (none or v > row["offered"]):
                    row.update(x=turn, offered=v)
                elif not end and (h or (none and v > row["value"])):
                    row.update(x=turn, value=v, done=h)
        assert record.adv["rgb"].flatten().tolist() == [row["x"] for row in rows]
        assert record.done.tolist() == [row["done"] for row in rows]
        records.append(record)
        expected.append(rows)
    index = torch.tensor([3, 0, 17, 39, 21, 5])
    one, other = records[0], records[1].select(torch.arange(6))
    one.merge(other, index)
    for place, theirs in zip(index.tolist(), expected[1][:6], strict=True):
        mine = expected[0][place]
        if not mine["done"] and (theirs["done"] or theirs["value"] > mine["value"]):
            mine.update(x=theirs["x"], value=theirs["value"], done=theirs["done"])
    assert one.adv["rgb"].flatten().tolist() == [row["x"] for row in expected[0]]
    assert one.done.tolist() == [row["done"] for row in expected[0]]
    assert one.value.tolist() == [row["value"] for row in expected[0]]


def test_a_pass_is_charged_once_a_sample_to_every_counter_on_the_way() -> None:
    inner = Counter(torch.nn.Identity())
    outer = Counter(Averaged(inner, 3))
    count(outer, ("a", "b"), backward=False)
    count(outer, ("a",), backward=True)
    assert (outer.forwards["a"], outer.backwards["a"], outer.passes("b")) == (1, 1, 1)
    assert (inner.forwards["b"], inner.backwards["a"], inner.passes("a")) == (3, 3, 6)
