"""Models: each test fails on one small break that once went unseen."""

import pytest
import torch

from components.attacks import frozen
from components.models import build_model
from components.models.fusions.fim import FIM

SMALL = {"width": 0.5, "num_classes": 4, "skeleton_frames": 16}
FUSIONS = ("late", "concat", "mmtm", "minsim", "exfmem", "minsim_exfmem", "fim", "amr")


def awake(**settings):
    """A model in which nothing that starts at 0 is 0 any more: weights and gates depend on x."""
    torch.manual_seed(0)
    model = build_model({**SMALL, **settings})
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.5)
    return model


@pytest.mark.parametrize("name", ["rgb", "skeleton"])
def test_attacks_reach_the_modality_weights(name, inputs) -> None:
    rgb, skeleton, present = inputs()
    leaf = {"rgb": rgb, "skeleton": skeleton}[name].requires_grad_(True)
    with frozen(awake(fusion="amr")) as model:
        weights = model(rgb, skeleton, present).weights
    assert weights
    for weight in weights.values():
        (grad,) = torch.autograd.grad(weight[..., 0].sum(), leaf, retain_graph=True)
        assert (grad.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_in_use_are_those_of_the_function(fusion, inputs) -> None:
    """Along random directions, against central differences: no path to the logits is cut off."""
    rgb, skeleton, present = (x[:2] for x in inputs())
    draw = torch.Generator().manual_seed(1)
    model = awake(fusion=fusion).eval()
    for name in ("rgb", "skeleton"):
        x = {"rgb": rgb, "skeleton": skeleton}[name]
        way = torch.randn(x.shape, generator=draw)

        def along(t, name=name, x=x, way=way):
            moved = {"rgb": rgb, "skeleton": skeleton, name: x + t * way}
            output = model(moved["rgb"], moved["skeleton"], present)
            return output.logits.float()

        t = torch.zeros((), requires_grad=True)
        logits = along(t)
        pull = torch.randn(logits.shape, generator=draw)
        (slope,) = torch.autograd.grad((logits * pull).sum(), t)
        with torch.no_grad():
            size = 2e-4
            seen = ((along(size) - along(-size)).double() * pull).sum() / (2 * size)
        assert float(slope) == pytest.approx(float(seen), rel=0.05, abs=0.02)


def test_fim_scales_and_shifts_by_what_the_joint_vector_says() -> None:
    """map = 2 sigmoid(A z) map + B z, with z from means and maxima of both maps."""
    torch.manual_seed(0)
    fim = FIM(4, 6).eval()
    for parameter in fim.parameters():
        torch.nn.init.normal_(parameter)
    video, bodies = torch.randn(2, 4, 3, 2, 2), torch.randn(2, 6, 2, 5, 3)
    real = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    rows = []
    for b in range(2):
        seen = bodies[b][:, : int(real[b].sum())]
        rows.append(
            torch.cat([video[b].mean((1, 2, 3)), video[b].amax((1, 2, 3)),
                       seen.mean((1, 2, 3)), seen.amax((1, 2, 3))])
        )  # fmt: skip
    out = fim.calibrate(fim.joint(torch.stack(rows)))
    gates, shifts = 2 * torch.sigmoid(out[:, :10]), out[:, 10:]
    new_video, new_bodies = fim(video, bodies, real)
    torch.testing.assert_close(
        new_video, video * gates[:, :4, None, None, None] + shifts[:, :4, None, None, None]
    )
    torch.testing.assert_close(
        new_bodies, bodies * gates[:, 4:, None, None, None] + shifts[:, 4:, None, None, None]
    )
