"""A model as torch.export's program: one file that runs without this project's code.

The file is a ZIP archive of the graph, the weights and pickled examples of the inputs. Reading one
can run code (PyTorch's own warning), so this module reads nothing but what it has just written.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.batch import JOINTS, PERSONS, Batch, logits_of
from components.errors import UserError

TOLERANCE = 1e-4  # of the logits, relative to the largest; the graph adds in another order
MOST = 1024  # clips of one call
ABOUT = "amr.json"  # what the program's inputs and outputs mean


class Logits(nn.Module):
    """A two-stream model that returns its logits alone, which any runtime can take."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rgb: Tensor, skeleton: Tensor, present: Tensor) -> Tensor:
        """rgb [B, 3, T, H, W], skeleton [B, 3, S, V, M], present bool [B, S, M] -> [B, K]."""
        return logits_of(self.model(rgb, skeleton, present))


def export_program(model: nn.Module, clips: Batch, path: Path, about: Mapping[str, Any]) -> float:
    """Write the program to `path` once it gives the model's answers; the largest difference found.

    clips: real ones, compared in one call and each by itself; about: plain values, kept in the file
    Raises UserError when an answer differs: then no file is written.
    """
    wrapped = Logits(model).eval()
    frames, size = clips.rgb.shape[2], clips.rgb.shape[3]
    steps = clips.skeleton.shape[2]
    shapes = {
        "rgb": [3, frames, size, size],
        "skeleton": [3, steps, JOINTS, PERSONS],
        "present": [steps, PERSONS],
    }
    # The inputs it is traced with travel in the file, so they are made up: clips may be licensed.
    made_up = (
        torch.zeros(2, *shapes["rgb"]),
        torch.zeros(2, *shapes["skeleton"]),
        torch.ones(2, *shapes["present"], dtype=torch.bool),
    )
    any_number = {0: torch.export.Dim("clips", min=1, max=MOST)}
    program = torch.export.export(wrapped, made_up, dynamic_shapes=(any_number,) * 3)
    for node in program.graph.nodes:  # where the code lies on this machine is nobody's business
        node.meta.pop("stack_trace", None)
    body = json.dumps({"inputs": shapes, "output": "logits", **about}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Under its own name, which the archive keeps inside, but elsewhere until it is checked.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as temporary:
        written = Path(temporary) / path.name
        torch.export.save(program, written, extra_files={ABOUT: body})
        loaded = torch.export.load(written).module()
        worst = _largest_difference(wrapped, loaded, clips)
        written.replace(path)
    return worst


@torch.inference_mode()
def _largest_difference(model: nn.Module, loaded: Any, clips: Batch) -> float:
    every = list(range(clips.size))
    worst = 0.0
    for rows in (every, *([row] for row in every)):
        part = clips.select(torch.tensor(rows))
        inputs = (part.rgb, part.skeleton, part.present)
        expected, got = model(*inputs), loaded(*inputs)
        difference = float((expected - got).abs().max())
        allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
        same = torch.equal(expected.argmax(1), got.argmax(1))
        if not (difference <= allowed and same):  # also where it is NaN
            raise UserError(
                f"the exported program answers otherwise than the model: logits of "
                f"{part.clip_id[0]} differ by {difference:.3g} (allowed: {allowed:.1g}); no file "
                "is written. Export from the CPU build of PyTorch in constraints.txt"
            )
        worst = max(worst, difference)
    return worst
