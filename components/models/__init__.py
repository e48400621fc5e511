"""Two-stream models: backbones, normalisation, fusions, and `build_model`, which joins them."""

from components.models.build import build_model, two_stream
from components.models.two_stream import TwoStream

__all__ = ["TwoStream", "build_model", "two_stream"]
