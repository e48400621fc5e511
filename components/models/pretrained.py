"""Published weights from a file into a video backbone; nothing in the file is executed.

`.safetensors` is read here, with its own header checks, because models need no package but torch;
`.pth`/`.pt` goes through torch's loader restricted to tensors.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors, .pth or .pt file.

    Raises ValueError for another suffix, a damaged file or one that holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights file {path} does not exist")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix not in (".pth", ".pt"):
        raise ValueError(f"weights file {path}: expected .safetensors, .pth or .pt")
    try:
        # weights_only=True builds tensors and plain containers alone and refuses anything else.
        state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # noqa: BLE001 - the loader raises many kinds; all mean the same
        raise ValueError(
            f"{path} is no plain file of tensors; save it again as safetensors"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError(f"{path} must hold a state dict: a mapping from names to tensors alone")
    return dict(state)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The format: length of the header (8 bytes), a JSON header, then the bytes of the tensors."""
    body = bytearray(path.read_bytes())
    try:
        (length,) = struct.unpack_from("<Q", body)
        if 8 + length > len(body):
            raise ValueError("the file ends within its header")
        header = json.loads(body[8 : 8 + length].decode())
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
            if start == end:
                tensors[name] = torch.empty(shape, dtype=dtype)
                continue
            raw = torch.frombuffer(body[start:end], dtype=torch.uint8).clone()
            tensors[name] = raw.view(dtype).reshape(shape)
    except (struct.error, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{path} is no sound safetensors file: {error}") from error
    return tensors


def inflate(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """2D convolution weights [O, I, h, w] placed in the centre slice of the 3D ones, rest zero.

    A net inflated this way gives on every frame what the 2D net gives on it as an image.
    """
    out = {}
    for name, tensor in state.items():
        if name in target and tensor.dim() == 4 and target[name].dim() == 5:
            depth = target[name].shape[2]
            grown = tensor.new_zeros(*tensor.shape[:2], depth, *tensor.shape[2:])
            grown[:, :, depth // 2] = tensor
            tensor = grown
        out[name] = tensor
    return out


def load_backbone(backbone: nn.Module, path: str | Path) -> None:
    """Fill a video backbone from a published file; its classifier `fc` is dropped.

    2D weights are inflated. Every other name and shape must fit, else ValueError names them.
    """
    target = {k: v for k, v in backbone.state_dict().items() if not k.startswith("fc.")}
    state = {k: v for k, v in read_state_dict(path).items() if not k.startswith("fc.")}
    state = inflate(state, target)
    # Files written before BatchNorm counted its batches lack this; it is no weight.
    counted = "num_batches_tracked"
    missing = sorted(k for k in target.keys() - state.keys() if not k.endswith(counted))
    unexpected = sorted(state.keys() - target.keys())
    shapes = sorted(
        f"{k} {tuple(state[k].shape)} instead of {tuple(target[k].shape)}"
        for k in state.keys() & target.keys()
        if state[k].shape != target[k].shape
    )
    faults = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes}
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {_few(names)}" for kind, names in faults.items() if names)
        raise ValueError(
            f"{path} does not fit {type(backbone).__name__} ({listed}); "
            "check model.rgb and model.width against the file"
        )
    backbone.load_state_dict(state, strict=False)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
