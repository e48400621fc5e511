"""What a registered model takes and answers, in MLflow's words, with an example to try."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature


def signature() -> "ModelSignature":
    """Raw clips or ready arrays, one row a clip; no column is needed by itself.

    MLflow would walk through nested arrays value by value, so their shapes are checked by
    `serving.py`, which also says what is wrong.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, Map, Schema, TensorSpec

    inputs: list[ColSpec | TensorSpec] = [
        ColSpec("string", key, required=False) for key in ("video_base64", "skeleton_text")
    ]
    inputs += [ColSpec(AnyType(), key, required=False) for key in ("rgb", "skeleton", "present")]
    numbers = Map(DataType.double)
    answers: list[ColSpec | TensorSpec] = [
        ColSpec("long", "label"),
        ColSpec("long", "action"),
        ColSpec("string", "class_name"),
        ColSpec("double", "probability"),
        ColSpec(numbers, "probabilities"),
        ColSpec(numbers, "modality_weights", required=False),
        ColSpec(Map(numbers), "weights_by_place", required=False),
    ]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(answers))


def input_example(model: Mapping[str, Any]) -> "pd.DataFrame":
    """One clip of ready arrays of the right shapes: a grey square and a person standing still."""
    import pandas as pd

    frames, side, steps = model["rgb_frames"], model["rgb_size"], model["skeleton_frames"]
    rgb = np.full((3, frames, side, side), 0.5)
    skeleton = np.zeros((3, steps, 25, 2))
    skeleton[1, :, :, 0] = np.linspace(-0.9, 0.7, 25)
    skeleton[2, :, :, 0] = 3.0
    present = np.zeros((steps, 2), dtype=int)
    present[:, 0] = 1
    values = {"rgb": rgb, "skeleton": skeleton, "present": present}
    return pd.DataFrame({key: [value.tolist()] for key, value in values.items()})
