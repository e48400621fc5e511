"""Per-clip verdicts from the records of an evaluation."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc


def verdicts(path: Path, cell: str) -> dict[str, bool]:
    """Per clip whether it is right on clean input and on all adversarial inputs of `cell`.

    What one modality alone broke counts under "both" too, as in the evaluation: it lies within
    the joint budget. `cell` may be "clean".
    """
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    cells = {"clean", cell} | ({"rgb", "skeleton"} if cell == "both" else set())
    inside = np.isin(table["cell"].to_numpy(zero_copy_only=False), sorted(cells))
    clips = table["clip_id"].to_numpy(zero_copy_only=False)[inside]
    correct = table["correct"].to_numpy(zero_copy_only=False)[inside]
    found = dict.fromkeys(clips.tolist(), True)
    found.update(dict.fromkeys(clips[~correct].tolist(), False))
    return found
