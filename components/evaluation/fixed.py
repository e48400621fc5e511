"""A model whose answer for a clip does not depend on the other clips of the batch, to the last bit.

Matrix kernels round differently for 3 rows and for 16, and the sign of a gradient makes a full
step of a difference in the last bit. Attacks drop clips as they fall, so without this a clip's
fate would hang on its neighbours: the cascade would not equal the exhaustive run, nor would any
early stop "change no result". docs/evaluation.md has the measurement.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from components.batch import ModelOutput
from components.errors import UserError


class FixedShape(nn.Module):
    """Runs `model` on exactly `batch_size` clips at a time, the last ones filled up with repeats.

    Clips with one and with two persons go apart: our models skip the second person when nobody in
    the batch has one. Gradients pass through; what fills up receives none.
    """

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}")
        self.model = model
        self.batch_size = batch_size

    def forward(self, rgb: Tensor, skeleton: Tensor, present: Tensor) -> ModelOutput | Tensor:
        """As the model's own: rgb [B, 3, T, H, W], skeleton [B, 3, S, V, M], present [B, S, M]."""
        persons = _persons(present)
        order = persons.argsort(stable=True)
        kinds = persons[order].unique_consecutive(return_counts=True)[1].tolist()
        back: Tensor | None = None
        if len(kinds) > 1:
            rgb, skeleton, present = (x.index_select(0, order) for x in (rgb, skeleton, present))
            back = order.argsort()
        outputs = []
        start = 0
        for clips in kinds:
            for at in range(start, start + clips, self.batch_size):
                end = min(at + self.batch_size, start + clips)
                filled = (self._fill(x[at:end]) for x in (rgb, skeleton, present))
                outputs.append(_head(self.model(*filled), end - at))
            start += clips
        return _join(outputs, back)

    def _fill(self, x: Tensor) -> Tensor:
        missing = self.batch_size - x.shape[0]
        if missing == 0:
            return x
        which = torch.arange(missing, device=x.device) % x.shape[0]
        return torch.cat([x, x.detach()[which]])


def _persons(present: Tensor) -> Tensor:
    """Highest person slot filled in each clip, [B]; GPUs skip none, so there all count alike."""
    if present.device.type != "cpu":
        return torch.zeros(present.shape[0], dtype=torch.int64, device=present.device)
    return (present.any(1) * torch.arange(1, present.shape[2] + 1)).amax(1)


def _head(output: ModelOutput | Tensor, n: int) -> ModelOutput | Tensor:
    if isinstance(output, Tensor):
        return output[:n]
    parts = ({k: v[:n] for k, v in part.items()} for part in output[1:])
    return ModelOutput(output.logits[:n], *parts)


def _join(outputs: Sequence[ModelOutput | Tensor], back: Tensor | None) -> ModelOutput | Tensor:
    def cat(tensors: Sequence[Tensor]) -> Tensor:
        whole = torch.cat(list(tensors)) if len(tensors) > 1 else tensors[0]
        return whole if back is None else whole.index_select(0, back)

    def merge(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {name: cat([part[name] for part in parts]) for name in parts[0]}

    rich = [output for output in outputs if isinstance(output, ModelOutput)]
    if not rich:
        return cat([output for output in outputs if isinstance(output, Tensor)])
    return ModelOutput(
        cat([o.logits for o in rich]),
        merge([o.aux for o in rich]),
        merge([o.weights for o in rich]),
        merge([o.features for o in rich]),
    )
