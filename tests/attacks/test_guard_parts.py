"""What attacks are made of: when a model is folded, what adaptive losses add, what is refused."""

import copy

import pytest
import torch
from torch import Tensor, nn

from components.attacks import ADAPTIVE, ATTACKS, Budget, Counter, ThreatModel, eot
from components.attacks.adaptive import _attention, _heads
from components.attacks.checked import looked_at, pixel_bounds
from components.attacks.eot import Averaged
from components.attacks.folding import _few_channels, conv_norm_pairs, folded
from components.attacks.gradient import value_and_grad
from components.attacks.losses import margin_loss
from components.attacks.sparse import sparse_frames
from components.batch import Batch, ModelOutput
from components.errors import UserError

USUAL = {"stride": (1, 2, 2), "padding": (1, 2, 2)}


@pytest.mark.parametrize(
    ("channels", "kernel", "changes", "quick"),
    [
        (3, (3, 5, 5), {}, True),
        (4, (3, 5, 5), {"bias": False}, True),
        (5, (3, 5, 5), {}, False),
        (3, (3, 5, 5), {"stride": (2, 2, 2)}, False),
        (3, (3, 5, 5), {"stride": (1, 2, 1)}, False),
        (3, (3, 5, 5), {"stride": (1, 1, 2)}, False),
        (3, (3, 5, 5), {"groups": 3}, False),
        (3, (3, 5, 5), {"dilation": (2, 1, 1)}, False),
        (3, (3, 5, 5), {"dilation": (1, 2, 2)}, False),
        (3, (3, 5, 5), {"padding_mode": "circular"}, False),
        (3, (3, 5, 5), {"padding": (0, 2, 2)}, False),
        (3, (3, 5, 5), {"padding": (1, 2, 1)}, False),
        (3, (2, 4, 4), {}, False),
        (3, (3, 4, 5), {}, False),
    ],
)  # fmt: skip
def test_only_a_video_net_s_usual_first_convolution_gets_another_gradient(
    channels, kernel, changes, quick
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv3d(channels, 6, kernel, **{**USUAL, **changes}).double().requires_grad_(False)
    x = torch.rand((2, channels, 5, 8, 12), dtype=torch.float64, requires_grad=True)
    plain = conv(x)
    way = torch.rand_like(plain)
    (expected,) = torch.autograd.grad(plain, x, way)
    with folded(conv):
        forward = conv.__dict__.get("forward")
        assert (getattr(forward, "func", None) is _few_channels) == quick
        found = conv(x)
        (slope,) = torch.autograd.grad(found, x, way)
        assert torch.equal(conv(x.detach()), plain)
        if quick:  # rows or columns that are no pairs, and a clip without a batch
            for odd in (x.detach()[..., :11], x.detach()[..., :7, :], x.detach()[0]):
                odd.requires_grad_(True)
                name = type(conv(odd).grad_fn).__name__
                assert "FewChannels" not in name
    assert torch.equal(found, plain) and "forward" not in conv.__dict__
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-12)


class Own(nn.Conv2d):
    """A convolution of another kind."""


def test_pairs_that_someone_watches_or_changed_stay_apart() -> None:
    def pair(conv=None, norm=None) -> nn.Sequential:
        return nn.Sequential(conv or nn.Conv2d(2, 3, 1), norm or nn.BatchNorm2d(3)).eval()

    assert len(conv_norm_pairs(pair())) == 1
    assert len(conv_norm_pairs(nn.Sequential(nn.Sequential(pair()[0]), pair()[1]).eval())) == 1
    assert not conv_norm_pairs(pair(Own(2, 3, 1)))
    assert not conv_norm_pairs(pair(norm=nn.BatchNorm2d(3, track_running_stats=False)))
    assert not conv_norm_pairs(pair(nn.ConvTranspose2d(2, 3, 1)))
    for place in (0, 1):
        for hook in ("forward", "forward_pre", "full_backward", "full_backward_pre"):
            watched = pair()
            getattr(watched[place], f"register_{hook}_hook")(lambda *_: None)
            assert not conv_norm_pairs(watched), hook
        changed = pair()
        changed[place].forward = lambda x: x
        assert not conv_norm_pairs(changed)
        half = pair()
        half[place].train()
        assert len(conv_norm_pairs(half)) == (place == 0)
    twice = pair()
    both = nn.Sequential(twice, nn.Sequential(twice[1])).eval()
    assert not conv_norm_pairs(both)


@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_pair_is_one_convolution(bias) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3, bias=bias), nn.BatchNorm2d(3), nn.ReLU()).double()
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2.0)
    net.eval().requires_grad_(False)
    before, x = copy.deepcopy(net.state_dict()), torch.randn(2, 2, 5, 5, dtype=torch.float64)
    expected = net(x)
    with folded(net):
        assert net[1](x) is x
        torch.testing.assert_close(net(x), expected)
        torch.testing.assert_close(net[0](x).relu(), expected)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_adaptive_losses_are_their_sums_of_logarithms() -> None:
    logits, label = torch.tensor([[1.0, 0.0], [0.5, 2.0]]), torch.tensor([0, 0])
    aux = {"rgb": logits * 2, "skeleton": -logits}
    weights = torch.tensor([[0.2, 0.8], [0.0, 1.0]])
    output = ModelOutput(logits, aux, {"logits": weights}, {})

    def entropy(x: torch.Tensor) -> torch.Tensor:
        return -x.log_softmax(1)[:, 0]

    for column, logs in ((0, [0.2, 1e-6]), (1, [0.8, 1.0])):
        found = _attention(output, label, column=column, weight=3.0)
        torch.testing.assert_close(found, entropy(logits) + 3.0 * torch.tensor(logs).log())
    heads = entropy(logits) + entropy(2 * logits) + entropy(-logits)
    torch.testing.assert_close(_heads(output, label), heads)


def test_what_is_the_default_of_attacks_with_random_models(model, clips) -> None:
    """Ten samples a pass; each seed and each set of clips has its own draws."""
    counter, draws = Counter(model), []
    eot(counter, clips, ThreatModel(rgb=Budget("Linf", 1e-6)), seed=0, steps=1)
    assert counter.forwards["clip0"] == 2 * 10 and counter.backwards["clip0"] == 10

    def drawn(model, batch, threat, *, seed):
        draws.append(float(torch.rand(())))
        return batch

    threat = ThreatModel(rgb=Budget("Linf", 0.1))
    other = clips._replace(clip_id=("x", "y", "z"))
    for seed, batch in ((0, clips), (0, clips), (1, clips), (0, other)):
        eot(model, batch, threat, seed=seed, attack=drawn)
    assert draws[0] == draws[1] and len(set(draws)) == 3


def test_a_mean_output_is_the_mean_of_different_draws(clips) -> None:
    calls = iter(range(9))

    def random(rgb, skeleton, present):
        k = float(next(calls))
        logits = torch.tensor([[k, 0.0]]).repeat(3, 1)
        return ModelOutput(logits, {"rgb": logits}, {"logits": logits + 1}, {"rgb": logits + 2})

    found = Averaged(random, 3)(*clips[:3])
    logs = torch.stack([torch.tensor([k, 0.0]).log_softmax(0) for k in (0.0, 1.0, 2.0)]).mean(0)
    torch.testing.assert_close(found.logits[0], logs)
    assert found.aux["rgb"][0].tolist() == [1.0, 0.0]
    assert found.weights["logits"][0].tolist() == [2.0, 1.0]
    assert found.features["rgb"][0].tolist() == [3.0, 2.0]
    plain = Averaged(lambda *x: random(*x).logits, 2)(*clips[:3])
    assert isinstance(plain, torch.Tensor) and plain.shape == (3, 2)


@pytest.mark.parametrize(("norm", "frame"), [("Linf", 2), ("L2", 0)])
def test_frames_are_ranked_by_the_dual_norm_of_their_gradient(norm, frame, clips) -> None:
    """One pixel of slope 15 in frame 0, all of slope 1 in frame 2: 192 of them."""

    def net(rgb, skeleton, present):
        height = 15 * rgb[:, 0, 0, 3, 3] + rgb[:, :, 2].sum((1, 2, 3))
        return torch.stack([0 * height + 999, height], 1)

    batch = clips._replace(label=torch.zeros_like(clips.label), rgb=clips.rgb * 0.5 + 0.25)
    threat = ThreatModel(Budget(norm, 0.1))
    found = sparse_frames(net, batch, threat, seed=0, steps=2)
    moved = (found.rgb != batch.rgb).flatten(3).any(3).any(1)
    assert moved.tolist() == [[t == frame for t in range(4)]] * 3
    with pytest.raises(UserError, match="frames must be at least 1, got 0"):
        sparse_frames(net, batch, threat, seed=0, frames=0)


def test_budgets_are_looked_at_in_the_units_they_are_stated_in(clips) -> None:
    wide = Budget("Linf", 0.5, -1.0, 1.0)
    assert pixel_bounds(ThreatModel(wide)) == {"low": -1.0, "high": 1.0}
    assert pixel_bounds(ThreatModel()) == {"low": 0.0, "high": 1.0}
    grey = 0.51 * clips.rgb[0].numel() ** 0.5
    far = 0.51 * clips.skeleton[0].numel() ** 0.5
    for threat, unit in (
        (ThreatModel(Budget("L2", grey)), "metres"),
        (ThreatModel(Budget("L2", grey)), "pixels"),
        (ThreatModel(skeleton=Budget("L2", far)), "metres"),
        (ThreatModel(skeleton=Budget("Linf", 2.1)), "metres"),
    ):
        with pytest.raises(UserError, match="the eps of (rgb|skeleton)="):
            looked_at(clips, threat, unit)
    for threat, unit in (
        (ThreatModel(Budget("L2", grey / 1.1)), "metres"),
        (ThreatModel(Budget("L2", grey, -1.0, 1.0)), "metres"),
        (ThreatModel(skeleton=Budget("L2", far)), "pixels"),
        (ThreatModel(skeleton=Budget("Linf", 2.1)), "pixels"),
        (ThreatModel(Budget("Linf", 1.0), Budget("Linf", 2.0)), "metres"),
    ):
        assert looked_at(clips, threat, unit).label.dtype == torch.int64


def test_trust_in_the_touched_and_in_the_other_modality_are_two_attacks(model, clips) -> None:
    """With both touched these stand for video and skeleton."""
    threat = ThreatModel(Budget("Linf", 1e-3), Budget("Linf", 1e-3))
    with torch.no_grad():
        weight = [
            float(model(*ADAPTIVE[name](model, clips, threat, seed=0, weight=1e4, steps=5)[:3])
                  .weights["logits"][:, 0].mean())
            for name in ("attention_touched", "attention_other")
        ]  # fmt: skip
    assert weight[0] > weight[1]


class _Sums(nn.Module):
    """Logits from sums over time and place, whose gradient is one number for all frames."""

    def __init__(self, root_of_nothing: bool = False) -> None:
        super().__init__()
        self.root_of_nothing = root_of_nothing

    def forward(self, rgb: Tensor, skeleton: Tensor, present: Tensor) -> Tensor:
        if self.root_of_nothing:  # 0 with a gradient that is not a number
            rgb = (0 * rgb).sqrt()
        return rgb.sum((2, 3, 4)) + skeleton.sum((2, 3, 4)) * torch.tensor([3.0, 2.0, 1.0])


def _two_frames() -> Batch:
    return Batch(
        torch.full((2, 3, 2, 1, 1), 0.5),
        torch.zeros(2, 3, 2, 25, 1),
        torch.ones(2, 2, 1, dtype=torch.bool),
        torch.tensor([0, 1]),
        ("a", "b"),
    )


def test_a_gradient_that_two_frames_share_can_be_changed_in_place() -> None:
    batch = _two_frames()
    leaves = {"rgb": batch.rgb, "skeleton": batch.skeleton}
    _, _, grads = value_and_grad(_Sums(), batch, leaves, margin_loss)
    before = grads["rgb"].clone()
    grads["rgb"][:, :, 0].mul_(2)
    assert before.any() and torch.equal(grads["rgb"][:, :, 1], before[:, :, 1])


def test_a_gradient_that_is_no_number_moves_nothing() -> None:
    batch, threat = _two_frames(), ThreatModel(*(Budget("Linf", 0.1, -9, 9) for _ in range(2)))
    found = ATTACKS["mifgsm"](_Sums(root_of_nothing=True), batch, threat, seed=0, steps=2)
    assert torch.equal(found.rgb, batch.rgb)
    assert torch.isfinite(found.skeleton).all() and not torch.equal(found.skeleton, batch.skeleton)
