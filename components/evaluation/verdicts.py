"""Per-clip verdicts from the records of an evaluation: what paired comparisons are made of."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc


def verdicts(records: pa.Table | Path, cell: str) -> dict[str, bool]:
    """Per clip whether it is right on clean input and on all adversarial inputs of `cell`.

    records: the table, or the file that holds it. What one modality alone broke counts under
    "both" too, as in the evaluation: it lies within the joint budget. `cell` may be "clean".
    """
    if isinstance(records, Path):
        with pa.memory_map(str(records)) as source:
            records = pa.ipc.open_file(source).read_all()
    cells = {"clean", cell} | ({"rgb", "skeleton"} if cell == "both" else set())
    inside = np.isin(records["cell"].to_numpy(zero_copy_only=False), sorted(cells))
    clips = records["clip_id"].to_numpy(zero_copy_only=False)[inside]
    correct = records["correct"].to_numpy(zero_copy_only=False)[inside]
    found = dict.fromkeys(clips.tolist(), True)
    found.update(dict.fromkeys(clips[~correct].tolist(), False))
    return found
