"""PGD and FGSM: closed form on a linear model, exact costs, and no gradient that nobody needs."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from components.attacks import Budget, Counter, SingleStream, ThreatModel, frozen
from components.attacks.fgsm import fgsm
from components.attacks.gradient import value_and_grad
from components.attacks.losses import fooled, get_loss
from components.attacks.mifgsm import mifgsm
from components.attacks.pgd import pgd
from components.batch import Batch

BOTH = ThreatModel(Budget("Linf", 8 / 255), Budget("Linf", 0.05))


class Linear(nn.Module):
    """Two classes; logit 1 is a plane over both inputs, so far off that no clip is fooled."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.rgb = nn.Parameter(torch.randn(3, 4, 8, 8, generator=draw))
        self.skeleton = nn.Parameter(torch.randn(3, 6, 25, 2, generator=draw))

    def forward(self, rgb, skeleton, present):
        plane = (rgb * self.rgb).sum((1, 2, 3, 4)) + (skeleton * self.skeleton).sum((1, 2, 3, 4))
        return torch.stack([torch.zeros_like(plane), plane + 500], 1) * 0.001


@pytest.fixture(scope="module")
def linear():
    return Linear()


@pytest.fixture(scope="module")
def clips(linear, make_batch):
    return make_batch(linear, size=4)


def climb(model, clips):
    """Direction [B, ...] that raises the loss: away from the label's side of the plane."""
    side = torch.where(clips.label == 1, -1.0, 1.0).reshape(-1, 1, 1, 1, 1)
    return side * model.rgb.detach(), side * model.skeleton.detach()


@pytest.mark.parametrize("attack", [fgsm, mifgsm, pgd])
def test_linf_reaches_the_corner(attack, linear, clips):
    adv = attack(linear, clips, BOTH, seed=0)
    rgb, skeleton = climb(linear, clips)
    mask = clips.present[:, None, :, None, :]
    assert torch.allclose(adv.rgb, (clips.rgb + 8 / 255 * rgb.sign()).clamp(0, 1), atol=1e-6)
    assert torch.allclose(adv.skeleton, clips.skeleton + 0.05 * skeleton.sign() * mask, atol=1e-6)


@pytest.mark.parametrize("attack", [fgsm, mifgsm, partial(pgd, rel_alpha=1.0)])
def test_l2_follows_the_gradient_to_the_sphere(attack, linear, clips):
    threat = ThreatModel(Budget("L2", 0.5, -9, 9), Budget("L2", 0.7))
    adv = attack(linear, clips, threat, seed=0)
    rgb, skeleton = climb(linear, clips)
    skeleton = skeleton * clips.present[:, None, :, None, :]
    for got, clean, way, eps in (
        (adv.rgb, clips.rgb, rgb, 0.5),
        (adv.skeleton, clips.skeleton, skeleton, 0.7),
    ):
        wanted = clean + eps * way / way.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1, 1)
        assert torch.allclose(got, wanted, atol=3e-3)


def test_exactly_steps_passes_and_no_more(make_model, make_batch):
    model = make_model()
    clips = make_batch(model)
    for steps, restarts in ((1, 1), (7, 1), (3, 2), (0, 1)):
        for keep in ("last", "best"):
            counter = Counter(model)
            pgd(counter, clips, BOTH, seed=0, steps=steps, n_restarts=restarts, keep=keep)
            spent = steps * restarts
            assert counter.forwards["clip0"] == counter.backwards["clip0"] == spent
            assert counter.forwards.total() == clips.size * spent


class Ops(TorchDispatchMode):
    """Names of all operations that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_loop_never_waits_for_the_device(keep, make_model, make_batch):
    """What reads a tensor's value on the host, or sizes a result by it, would stall a GPU."""
    model = make_model()
    clips = make_batch(model)
    waits = {"_local_scalar_dense", "item", "nonzero", "masked_select", "is_nonzero"}
    with Ops() as ops:
        pgd(model, clips, BOTH, seed=0, steps=3, keep=keep)
    assert "convolution_backward" in ops.seen
    assert not ops.seen & waits
    with Ops() as ops:
        pgd(model, clips, BOTH, seed=0, steps=3, early_stop=True)
    assert ops.seen & waits, "the list above must be able to catch one"


def test_inside_ddp_the_plain_module_is_attacked(make_model, make_batch, tmp_path):
    model = make_model()
    clips = make_batch(model)
    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        wrapped.forward = None  # its hooks must not run
        found = pgd(wrapped, clips, BOTH, seed=0, steps=2)
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(found.rgb, pgd(model, clips, BOTH, seed=0, steps=2).rgb)
    assert all(p.grad is None for p in model.parameters())


def test_single_modality_asks_for_no_other_gradient(make_model, make_batch):
    model = make_model()
    clips = make_batch(model)
    seen = []

    def spy(rgb, skeleton, present):
        seen.append((rgb.requires_grad, skeleton.requires_grad))
        seen.append(tuple(p.requires_grad for p in model.parameters()))
        return model(rgb, skeleton, present)

    with frozen(model):
        pgd(spy, clips, BOTH.cell("rgb"), seed=0, steps=1)
        pgd(spy, clips, BOTH.cell("skeleton"), seed=0, steps=1)
    assert seen[0] == (True, False) and seen[2] == (False, True)
    assert not any(seen[1]) and not any(seen[3])
    assert all(p.requires_grad for p in model.parameters())


def test_default_step_is_madrys(linear, clips):
    """From the clean clip, two steps of 2.5 / 10 go half of the way."""
    threat = BOTH.cell("skeleton")
    adv = pgd(linear, clips, threat, seed=0, steps=2, rel_alpha=2.5 / 10, random_start=False)
    assert threat.sizes(clips, adv)["skeleton"].allclose(torch.tensor(0.025, dtype=torch.float64))
    for alpha in (None, 0.0):
        same = pgd(linear, clips, threat, seed=0, steps=10, rel_alpha=alpha, keep="last")
        explicit = pgd(linear, clips, threat, seed=0, steps=10, rel_alpha=0.25)
        assert torch.equal(same.skeleton, explicit.skeleton)


def test_best_keeps_a_clip_once_fooled(linear, clips, wrong):
    """A step far too long jumps back and forth over the boundary; "best" keeps the good side."""

    def ring(rgb, skeleton, present):
        off = (skeleton.mean((1, 2, 3, 4)) - 0.01).abs() - 0.005
        return torch.stack([off, -off], 1)

    zero = clips._replace(skeleton=clips.skeleton * 0, label=torch.zeros_like(clips.label))
    zero = zero._replace(present=torch.ones_like(zero.present))
    threat = BOTH.cell("skeleton")
    plain = {"steps": 4, "rel_alpha": 0.25, "random_start": False, "loss": "margin"}
    adv = pgd(ring, zero, threat, seed=0, keep="best", **plain)
    assert fooled(ring(*adv[:3]), zero.label).all()


def test_best_prefers_an_end_that_nobody_saw_to_a_point_seen_to_fail(clips):
    """The loss dips before the last step, and that step fools."""

    def dip(rgb, skeleton, present):
        mean = skeleton.mean((1, 2, 3, 4))
        off = torch.where(mean < 0.005, mean - 0.1, 100 * (mean - 0.015))
        return torch.stack([-off, off], 1)

    zero = clips._replace(skeleton=clips.skeleton * 0, label=torch.zeros_like(clips.label))
    zero = zero._replace(present=torch.ones_like(zero.present))
    threat = ThreatModel(skeleton=Budget("Linf", 0.02))
    plain = {"steps": 2, "rel_alpha": 0.5, "random_start": False, "loss": "margin"}
    for early_stop in (False, True):
        adv = pgd(dip, zero, threat, seed=0, keep="best", early_stop=early_stop, **plain)
        assert fooled(dip(*adv[:3]), zero.label).all()


def test_early_stop_fools_the_same_clips_for_less(make_model, make_batch, wrong):
    model = make_model().eval()
    clips = make_batch(model, size=8)
    threat = BOTH.scaled(0.5, 0.5)
    for restarts in (1, 2):
        full, part = Counter(model), Counter(model)
        options = {"seed": 0, "steps": 8, "keep": "best", "n_restarts": restarts}
        one = pgd(full, clips, threat, **options)
        other = pgd(part, clips, threat, early_stop=True, **options)
        assert torch.equal(wrong(model, one), wrong(model, other))
        assert 0 < wrong(model, one).sum() < 8
        assert part.forwards.total() < full.forwards.total()
        threat.check(clips, other)


def test_early_stop_keeps_the_best_restart_of_a_clip_that_stands(make_model, make_batch, wrong):
    model = make_model().eval()
    clips = make_batch(model, size=8)
    weak = BOTH.scaled(0.002, 0.002)
    options = {"seed": 0, "steps": 2, "keep": "best"}
    one = pgd(model, clips, weak, n_restarts=4, **options)
    assert not wrong(model, one).any()
    other = pgd(model, clips, weak, n_restarts=4, early_stop=True, **options)
    assert torch.equal(one.rgb, other.rgb) and torch.equal(one.skeleton, other.skeleton)
    first = pgd(model, clips, weak, early_stop=True, **options)
    assert not torch.equal(first.rgb, other.rgb)  # for some clip a later restart was better


def test_early_stop_leaves_a_fooled_clip_where_it_fell(make_model, make_batch, wrong):
    """Training's use: the last iterate, but no step beyond the boundary."""
    model = make_model()
    clips = make_batch(model)
    options = {"seed": 0, "steps": 10, "random_start": False}
    stopped = pgd(model, clips, BOTH, early_stop=True, **options)
    gone = pgd(model, clips, BOTH, **options)
    hit = wrong(model, stopped)
    assert hit.any()
    assert (BOTH.sizes(clips, stopped)["rgb"] < BOTH.sizes(clips, gone)["rgb"])[hit].any()


def test_smoothed_labels_change_the_loss():
    logits, label = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    plain, smooth = (get_loss("ce", s)(logits, label) for s in (0.0, 0.1))
    share = torch.tensor([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3])
    assert torch.allclose(smooth, -(share * logits.log_softmax(1)).sum(1))
    assert not torch.allclose(plain, smooth)


def test_a_model_that_hides_its_input_has_zero_gradients(clips):
    def blind(rgb, skeleton, present):
        return torch.stack([rgb.detach().mean((1, 2, 3, 4)), torch.zeros(len(rgb))], 1)

    def half_blind(rgb, skeleton, present):
        return torch.stack([rgb.mean((1, 2, 3, 4)), torch.zeros(len(rgb))], 1)

    start = BOTH.region(clips).start()
    _, _, none = value_and_grad(blind, clips, start, get_loss("ce"))
    _, _, some = value_and_grad(half_blind, clips, start, get_loss("ce"))
    assert not none["rgb"].any() and not none["skeleton"].any()
    assert some["rgb"].any() and not some["skeleton"].any()


def test_nan_gradients_do_not_poison_a_clip(clips):
    def rooted(rgb, skeleton, present):
        # The length of a zero vector: its gradient is NaN at every absent person.
        size = skeleton.square().sum(1).sqrt().mean((1, 2, 3))
        return torch.stack([size, rgb.mean((1, 2, 3, 4))], 1)

    for norm in ("Linf", "L2"):
        threat = ThreatModel(Budget(norm, 0.1), Budget(norm, 0.1))
        adv = pgd(rooted, clips, threat, seed=0, steps=3, loss="margin")
        threat.check(clips, adv)
        assert threat.sizes(clips, adv)["skeleton"].min() > 0.05


def test_everything_is_restored_after_an_error(make_model, make_batch):
    model = make_model().train()
    clips = make_batch(model)

    def broken(output, label):
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        pgd(model, clips, BOTH, seed=0, loss=broken)
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_it_works_where_gradients_are_off_but_not_in_inference_mode(make_model, make_batch):
    model = make_model()
    clips = make_batch(model)
    with torch.no_grad():
        off = pgd(model, clips, BOTH, seed=0, steps=2)
    assert torch.equal(off.rgb, pgd(model, clips, BOTH, seed=0, steps=2).rgb)
    with torch.inference_mode(), pytest.raises(ValueError, match="no_grad"):
        pgd(model, clips, BOTH, seed=0, steps=2)


def test_a_single_stream_model_is_attacked_through_the_adapter(clips):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 8 * 8, 5))
    model = SingleStream(net, "rgb")
    alone: Batch = clips._replace(label=net(clips.rgb).argmax(1))
    adv = pgd(model, alone, ThreatModel(Budget("Linf", 0.2)), seed=0, steps=5)
    assert fooled(model(*adv[:3]), alone.label).all()
    with pytest.raises(ValueError, match="'rgb' or 'skeleton'"):
        SingleStream(net, "audio")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": -1}, "steps >= 0"),
        ({"n_restarts": 0}, "n_restarts >= 1"),
        ({"loss": "l"}, "ce, "),
    ],
)
def test_wrong_parameters_are_named(options, words, linear, clips):
    with pytest.raises(ValueError, match=words):
        pgd(linear, clips, BOTH, seed=0, **options)
