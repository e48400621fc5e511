"""Video backbones against torchvision's structure, which is written out here from its sources."""

import json
import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from components.checkpoint import initial_model, read_state_dict
from components.errors import UserError
from components.models.backbones.inflated import InflatedResNet50
from components.models.backbones.pretrained import inflate, load_backbone
from components.models.backbones.video_resnet import mc3_18, r2plus1d_18, r3d_18

Shapes = dict[str, tuple[int, ...]]


def _bn(name: str, c: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{p}": (c,) for p in parts} | {f"{name}.num_batches_tracked": ()}


def _published(kind: str) -> Shapes:
    """Names and shapes of torchvision's state dict with Kinetics-400's 400 classes."""
    if kind == "r2plus1d":
        shapes = {"stem.0.weight": (45, 3, 1, 7, 7), "stem.3.weight": (64, 45, 3, 1, 1)}
        shapes |= _bn("stem.1", 45) | _bn("stem.4", 64)
    else:
        shapes = {"stem.0.weight": (64, 3, 3, 7, 7)} | _bn("stem.1", 64)
    # Middle channels of R(2+1)D by (layer, block), as its published weights have them.
    middles = {(1, 0): 144, (1, 1): 144, (2, 0): 230, (2, 1): 288}
    middles |= {(3, 0): 460, (3, 1): 576, (4, 0): 921, (4, 1): 1152}
    before = 64
    for layer, c in ((1, 64), (2, 128), (3, 256), (4, 512)):
        for block in (0, 1):
            for conv, c_in in (("conv1", before), ("conv2", c)):
                name = f"layer{layer}.{block}.{conv}"
                if kind == "r2plus1d":
                    middle = middles[layer, block]
                    shapes[f"{name}.0.0.weight"] = (middle, c_in, 1, 3, 3)
                    shapes[f"{name}.0.3.weight"] = (c, middle, 3, 1, 1)
                    shapes |= _bn(f"{name}.0.1", middle)
                else:
                    depth = 3 if kind == "r3d" or layer == 1 else 1
                    shapes[f"{name}.0.weight"] = (c, c_in, depth, 3, 3)
                shapes |= _bn(f"{name}.1", c)
            if layer > 1 and block == 0:
                shapes[f"layer{layer}.0.downsample.0.weight"] = (c, before, 1, 1, 1)
                shapes |= _bn(f"layer{layer}.0.downsample.1", c)
            before = c
    return shapes | {"fc.weight": (400, 512), "fc.bias": (400,)}


@pytest.mark.parametrize(
    ("make", "kind", "parameters"),
    [(r3d_18, "r3d", 33371472), (mc3_18, "mc3", 11695440), (r2plus1d_18, "r2plus1d", 31505325)],
)
def test_names_shapes_and_counts_are_torchvisions(make, kind: str, parameters: int) -> None:
    with torch.device("meta"):
        net = make(num_classes=400)
    found = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    assert found == _published(kind)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize(
    ("make", "times"),
    [(r3d_18, (8, 4, 2, 1)), (mc3_18, (8, 8, 8, 8)), (r2plus1d_18, (8, 4, 2, 1))],
)
def test_maps_shrink_as_published(make, times: tuple[int, ...]) -> None:
    net = make(width=0.125).eval()
    video = net.begin(torch.rand(1, 3, 8, 64, 64))
    assert video.shape[1:] == (8, 8, 32, 32)
    for stage, channels, time, side in zip(
        net.stages, net.channels, times, (32, 16, 8, 4), strict=True
    ):
        video = stage(video)
        assert video.shape == (1, channels, time, side, side)


def test_inflated_resnet50_counts_its_widened_kernels() -> None:
    with torch.device("meta"):
        net = InflatedResNet50()
    # ResNet-50 without its classifier, plus two more slices in each middle convolution.
    middle = sum(n * (64 * 2**i) ** 2 * 9 for i, n in enumerate((3, 4, 6, 3)))
    assert sum(p.numel() for p in net.parameters()) == 25557032 - 2049000 + 2 * middle
    assert net.channels == (256, 512, 1024, 2048)


def test_inflation_gives_on_each_frame_what_the_image_net_gives() -> None:
    torch.manual_seed(0)
    net = InflatedResNet50(width=0.125, depths=(1, 1)).eval()
    flat = {}
    for name, tensor in net.state_dict().items():
        tensor = torch.rand_like(tensor) + 0.5 if "running_var" in name else tensor
        flat[name] = tensor[:, :, tensor.shape[2] // 2].clone() if tensor.dim() == 5 else tensor
    net.load_state_dict(inflate(flat, net.state_dict()))
    rgb = torch.rand(1, 3, 4, 32, 32)

    def features(video: Tensor) -> Tensor:
        video = net.begin(video)
        for stage in net.stages:
            video = stage(video)
        return video

    whole = features(rgb)
    for t in range(4):
        assert torch.allclose(whole[:, :, t : t + 1], features(rgb[:, :, t : t + 1]), atol=1e-5)
    block = net.layer1[0]
    twin = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    twin.weight.data = flat["layer1.0.conv2.weight"]
    image = torch.rand(1, 8, 6, 6)
    video = block.conv2(image[:, :, None].repeat(1, 1, 3, 1, 1))
    assert torch.allclose(video[:, :, 1], twin(image), atol=1e-6)


def _write_safetensors(path: Path, state: dict[str, Tensor]) -> None:
    """The format as its specification has it, without the library that reads it."""
    header, data = {}, b""
    for name, tensor in state.items():
        raw = tensor.contiguous().numpy().tobytes()
        dtype = {torch.float32: "F32", torch.int64: "I64"}[tensor.dtype]
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_published_weights_load_without_their_classifier(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    published = r3d_18(width=0.125, num_classes=400)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(published.state_dict(), path)
    else:
        _write_safetensors(path, published.state_dict())
    net = r3d_18(width=0.125)
    load_backbone(net, read_state_dict(path))
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, published.state_dict()[name]), name


def test_a_training_run_starts_from_the_published_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = r3d_18(width=0.125, num_classes=400)
    torch.save(published.state_dict(), tmp_path / "kinetics.pth")
    spec = {"rgb": "r3d_18", "width": 0.125, "num_classes": 3}
    model = initial_model({**spec, "rgb_weights": str(tmp_path / "kinetics.pth")})
    for name, tensor in model.rgb.state_dict().items():
        assert torch.equal(tensor, published.state_dict()[name]), name
    fresh = initial_model({**spec, "rgb_weights": ""})
    assert not torch.equal(fresh.rgb.layer1[0].conv1[0].weight, model.rgb.layer1[0].conv1[0].weight)
    with pytest.raises(UserError, match="does not exist"):
        initial_model({**spec, "rgb_weights": str(tmp_path / "none.pth")})


class _Evil:
    def __reduce__(self) -> tuple:
        return (Path.write_text, (Path("pwned"), "x"))


def test_a_file_with_more_than_tensors_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"stem.0.weight": _Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="no plain file of tensors"):
        read_state_dict(tmp_path / "evil.pth")
    assert not (tmp_path / "pwned").exists()
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="names to tensors alone"):
        read_state_dict(tmp_path / "other.pth")
    (tmp_path / "cut.safetensors").write_bytes(struct.pack("<Q", 900) + b"{}")
    with pytest.raises(UserError, match="is not a safetensors file"):
        read_state_dict(tmp_path / "cut.safetensors")
    with pytest.raises(UserError, match=r"expected \.safetensors"):
        read_state_dict(Path(__file__))
    with pytest.raises(UserError, match="does not exist"):
        read_state_dict(tmp_path / "none.pth")


def test_weights_of_another_net_are_refused_by_name(tmp_path: Path) -> None:
    net = r3d_18(width=0.125)
    torch.save(r2plus1d_18(width=0.125).state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"missing: .*unexpected: .*and \d+ more"):
        load_backbone(net, read_state_dict(tmp_path / "w.pth"))
    torch.save(r3d_18(width=0.25).state_dict(), tmp_path / "wide.pth")
    with pytest.raises(UserError, match="instead of"):
        load_backbone(net, read_state_dict(tmp_path / "wide.pth"))


@pytest.mark.parametrize(("lacks", "ending"), [(3, ""), (4, " and 1 more"), (5, " and 2 more")])
def test_three_names_are_listed_and_the_others_counted(lacks, ending) -> None:
    net = r3d_18(width=0.125)
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    gone = sorted(k for k in state if not k.endswith("num_batches_tracked"))[:lacks]
    with pytest.raises(UserError) as error:
        load_backbone(net, {k: v for k, v in state.items() if k not in gone})
    assert f"(missing: {', '.join(gone[:3])}{ending})" in str(error.value)
