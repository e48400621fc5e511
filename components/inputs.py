"""The one check of clips that come from outside: notebooks, other people's loaders, requests.

Wrong units give wrong robust accuracies without a word: pixels in [-1, 1] make an 8/255 budget
half as large, joints in millimetres make 5 cm nothing. So every entry point (`evaluate_model`,
`robust_accuracy`, predictors) looks at its clips once, before anything is attacked.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from components.batch import JOINTS, Batch
from components.errors import UserError
from components.units import MILLIMETRES

SLACK = 1e-4  # pixels may leave their bounds by this much, as resizing does
FARTHEST = 50.0  # metres; a Kinect sees no farther than 8, other sensors not farther than this


def check_clips(
    batch: Batch, *, low: float = 0.0, high: float = 1.0, unit: str = "metres"
) -> Batch:
    """The same clips, with labels as int64. UserError names what was found and the fix.

    low, high: bounds of the pixels; unit: of the joints ("metres" alone is checked for size)
    """
    for name in ("rgb", "skeleton", "present", "label"):
        if not isinstance(getattr(batch, name), Tensor):
            kind = type(getattr(batch, name)).__name__
            raise UserError(f"batch.{name} is a {kind}, expected a torch.Tensor")
    _check_shapes(batch)
    label = _labels(batch.label, batch.rgb.shape[0])
    _check_ids(batch.clip_id, batch.rgb.shape[0])
    check_pixels(batch.rgb, low, high)
    check_joints(batch.skeleton, batch.present, unit)
    return batch._replace(label=label)


def check_logits(logits: Tensor, clips: int) -> int:
    """The number of classes of a model's answer [B, K]; UserError when it is no logits.

    NaN is an answer: it counts as wrong, and the evaluation flags it. So are probabilities: the
    checks for masked gradients flag them (docs/flags.md).
    """
    if not isinstance(logits, Tensor):
        raise UserError(
            f"the model returned a {type(logits).__name__}; expected logits [B, K] as a tensor or "
            "a components.batch.ModelOutput. Wrap it: lambda *x: model(*x)[0]"
        )
    if logits.dim() != 2 or logits.shape[0] != clips:
        raise UserError(
            f"the model returned {list(logits.shape)} for {clips} clips; expected logits [B, K]"
        )
    if logits.shape[1] < 2:
        raise UserError(f"the model has {logits.shape[1]} logit; a recogniser needs at least 2")
    if not logits.is_floating_point():
        raise UserError(f"the model returned {logits.dtype}; expected logits as floating point")
    return logits.shape[1]


def check_labels(label: Tensor, outputs: int) -> None:
    """UserError when a label has no logit among `outputs`."""
    for found in (int(label.max()), int(label.min())):
        if not 0 <= found < outputs:
            raise UserError(
                f"label {found} but the model has {outputs} logits; labels are indices from 0"
            )


def _check_shapes(batch: Batch) -> None:
    expected = {
        "rgb": ("[B, 3, T, H, W]", 5),
        "skeleton": ("[B, 3, S, 25, M]", 5),
        "present": ("[B, S, M]", 3),
    }
    for name, (shape, dims) in expected.items():
        tensor = getattr(batch, name)
        if tensor.dim() != dims:
            raise UserError(f"batch.{name} is {list(tensor.shape)}, expected {shape}")
    clips = batch.rgb.shape[0]
    if clips == 0:
        raise UserError("the batch holds no clip; leave empty batches out")
    for name in ("skeleton", "present"):
        if getattr(batch, name).shape[0] != clips:
            found = getattr(batch, name).shape[0]
            raise UserError(f"batch.{name} has {found} clips, batch.rgb has {clips}")
    if batch.rgb.shape[1] != 3:
        raise UserError(
            f"batch.rgb is {list(batch.rgb.shape)}: colour comes second, as in [B, 3, T, H, W]"
        )
    frames, joints, persons = batch.skeleton.shape[2:]
    if batch.skeleton.shape[1] != 3 or joints != JOINTS:
        raise UserError(
            f"batch.skeleton is {list(batch.skeleton.shape)}, expected [B, 3, S, {JOINTS}, M]: "
            "coordinates second, joints fourth, persons last"
        )
    if tuple(batch.present.shape[1:]) != (frames, persons):
        raise UserError(
            f"batch.present is {list(batch.present.shape)}, but the skeleton has {frames} frames "
            f"and {persons} persons: expected [B, {frames}, {persons}]"
        )
    for name in ("rgb", "skeleton"):
        dtype = getattr(batch, name).dtype
        if dtype != torch.float32:
            raise UserError(
                f"batch.{name} is {dtype}, expected torch.float32: use batch.{name}.float()"
                + (" / 255" if dtype == torch.uint8 else "")
            )
    if batch.present.dtype != torch.bool:
        raise UserError(f"batch.present is {batch.present.dtype}, expected torch.bool: use .bool()")


def _labels(label: Tensor, clips: int) -> Tensor:
    if label.dim() == 2:
        raise UserError(
            f"batch.label is {list(label.shape)}, expected class indices [B]; "
            "one-hot labels: use label.argmax(1)"
        )
    if label.dim() != 1 or label.shape[0] != clips:
        raise UserError(f"batch.label is {list(label.shape)}, expected [{clips}]")
    if label.dtype.is_floating_point or label.dtype == torch.bool:
        raise UserError(f"batch.label is {label.dtype}, expected class indices as torch.int64")
    return label.to(torch.int64)


def _check_ids(ids: Sequence[str], clips: int) -> None:
    if len(ids) != clips:
        raise UserError(f"batch.clip_id has {len(ids)} names for {clips} clips")
    if len(set(ids)) < clips:
        twice = next(name for name in ids if list(ids).count(name) > 1)
        raise UserError(
            f"batch.clip_id holds {twice!r} twice: seeds and records go by it, so make it unique"
        )


def check_pixels(rgb: Tensor, low: float, high: float) -> None:
    """UserError when pixels leave [low, high]: it names the range found and the fix."""
    least, most = (float(x) for x in torch.aminmax(rgb))
    if not (least >= low - SLACK and most <= high + SLACK):  # also where it is NaN
        hint = "divide by 255" if most > 2.0 and least >= 0.0 else "normalise inside the model"
        raise UserError(
            f"batch.rgb lies in [{least:.3g}, {most:.3g}], expected [{low:g}, {high:g}]: budgets "
            f"are in these units, so {hint}"
        )


def check_joints(skeleton: Tensor, present: Tensor, unit: str) -> None:
    """UserError for joints that are not finite, or too far off to be in metres."""
    seen = skeleton * present[:, None, :, None, :]
    if not bool(torch.isfinite(seen).all()):
        raise UserError("batch.skeleton holds NaN or infinity at a person who is present")
    most = float(seen.abs().max())
    if unit == "metres" and most > FARTHEST:
        raise UserError(
            f"batch.skeleton reaches {most:.4g}; joints are expected in metres, and budgets too. "
            f"Millimetres: divide by {MILLIMETRES}. Another unit on purpose: pass unit='pixels'"
        )
