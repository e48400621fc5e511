"""A user's own model as the attacks see it: raw inputs in, logits out."""

from collections.abc import Callable

from torch import Tensor, nn

from components.errors import UserError


class SingleStream(nn.Module):
    """`model(rgb)` or `model(skeleton)` with the signature of a two-stream model.

    The wrapped model takes `rgb` float [B,3,T,H,W] in [0,1] or `skeleton` float [B,3,S,V,M] in
    metres, raw: put its normalisation inside. Raises ValueError for another modality.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], modality: str) -> None:
        super().__init__()
        if modality not in ("rgb", "skeleton"):
            raise UserError(f"modality must be 'rgb' or 'skeleton', got {modality!r}")
        self.model = model
        self.modality = modality

    def forward(self, rgb: Tensor, skeleton: Tensor, present: Tensor) -> Tensor:
        """Logits [B, K] of the one modality; the other is not read."""
        return self.model(rgb if self.modality == "rgb" else skeleton)
