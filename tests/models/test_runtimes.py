"""torch.compile, bf16 autocast, DDP and torch.export on every fusion of the small pair."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from components.models import TwoStream, two_stream
from components.models.backbones import SKELETON_BACKBONES, VIDEO_BACKBONES
from components.models.fusions import FUSIONS

SMALL = {"num_classes": 5, "width": 0.25, "skeleton_frames": 16}


def _model(fusion: str, **settings: object) -> TwoStream:
    torch.manual_seed(0)
    return two_stream(fusion=fusion, **{**SMALL, **settings}).eval()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_compiled_as_one_graph_it_gives_the_same(fusion: str, inputs: Callable) -> None:
    torch.compiler.reset()
    model, data = _model(fusion), inputs()
    expected, expected_gradient = _with_gradient(model, data)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    logits, gradient = _with_gradient(compiled, data)
    assert torch.allclose(logits, expected, atol=1e-5)
    assert torch.allclose(gradient, expected_gradient, atol=1e-5)


def _with_gradient(model: Callable, data: tuple) -> tuple[torch.Tensor, torch.Tensor]:
    leaves = [x.clone().requires_grad_() for x in data[:2]]
    logits = model(*leaves, *data[2:]).logits
    found = torch.autograd.grad(logits.square().sum(), leaves, allow_unused=True)
    grads = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]
    return logits.detach(), torch.cat([g.flatten() for g in grads])


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["amr", "minsim_exfmem"])
def test_compiled_by_inductor_it_gives_the_same(fusion: str, inputs: Callable) -> None:
    torch.compiler.reset()
    model, data = _model(fusion), inputs()
    # Gradients of the graph are compared above; the C++ of the backward pass doubles the time.
    with torch.no_grad():
        logits, expected = torch.compile(model)(*data).logits, model(*data).logits
    assert torch.allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_exported_it_gives_the_same_for_any_number_of_clips(fusion: str, inputs: Callable) -> None:
    model = _model(fusion)
    clips = {0: torch.export.Dim("clips", min=2, max=64)}
    program = torch.export.export(model, inputs(3), dynamic_shapes=(clips, clips, clips))
    data = inputs(5, seed=1)
    exported, expected = program.module()(*data), model(*data)
    assert torch.allclose(exported.logits, expected.logits, atol=1e-5)
    for name, weight in expected.weights.items():
        assert torch.allclose(exported.weights[name], weight, atol=1e-5)


# Each backbone at least once; the two streams do not see each other's kind.
PAIRS = list(zip(VIDEO_BACKBONES, [*SKELETON_BACKBONES, "hcn"], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("rgb", "skeleton"), PAIRS)
def test_every_backbone_compiles_and_exports(rgb: str, skeleton: str, inputs: Callable) -> None:
    torch.compiler.reset()
    model = _model("amr", rgb=rgb, skeleton=skeleton, width=0.125)
    data = inputs()
    expected, _ = _with_gradient(model, data)
    logits, _ = _with_gradient(torch.compile(model, backend="aot_eager", fullgraph=True), data)
    assert torch.allclose(logits, expected, atol=1e-4)
    exported = torch.export.export(model, data).module()
    assert torch.allclose(exported(*data).logits, expected, atol=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_bf16_autocast_is_close_and_trains(fusion: str, inputs: Callable) -> None:
    model, data = _model(fusion), inputs(4)
    expected = model(*data).logits.softmax(1)
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(*data)
        loss = out.logits.logsumexp(1).mean() + model.regulariser(out)
    loss.float().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    with torch.autocast("cpu", torch.bfloat16):
        close = _model(fusion)(*data).logits.float().softmax(1)
    assert torch.allclose(close, expected, atol=0.05)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_ddp_finds_every_gradient(fusion: str, inputs: Callable, process_group: None) -> None:
    """A parameter without a gradient makes DDP's second pass fail."""
    model = _model(fusion).train()
    alone = _model(fusion).train()
    wrapped = DistributedDataParallel(model)
    for seed in (0, 1):
        gradients = []
        for net, inner in ((wrapped, model), (alone, alone)):
            net.zero_grad()
            torch.manual_seed(seed)
            out = net(*inputs(4, seed=seed))
            loss = out.logits.logsumexp(1).mean() + inner.regulariser(out)
            loss = loss + sum(a.square().mean() for a in out.aux.values())
            loss.backward()
            gradients.append([p.grad.clone() for p in inner.parameters()])
        for a, b in zip(*gradients, strict=True):
            assert torch.allclose(a, b, atol=1e-6)
