"""Published weights into a video backbone, from a state dict (`components.checkpoint` reads it)."""

from collections.abc import Mapping

from torch import Tensor, nn

from components.errors import UserError


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


def load_backbone(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill a video backbone with a published state dict, whose classifier `fc` is dropped.

    2D weights are inflated. Every other name and shape must fit, else UserError names them.
    """
    target = {k: v for k, v in backbone.state_dict().items() if not k.startswith("fc.")}
    state = {k: v for k, v in state.items() if not k.startswith("fc.")}
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
        raise UserError(
            f"the published weights do not fit {type(backbone).__name__} ({listed}); check "
            "model.rgb and model.width against the file model.rgb_weights"
        )
    backbone.load_state_dict(state, strict=False)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
