"""Which clips stand, from the rows of an evaluation: what every paired comparison is made of."""

import pyarrow as pa
import pytest

from components.evaluation.verdicts import verdicts

# By clip: right as it is, and after each attack of a cell.
ROWS = {
    "stands": {"clean": [True], "rgb": [True, True], "skeleton": [True], "both": [True]},
    "wrong": {"clean": [False]},
    "falls to the second": {"clean": [True], "rgb": [True, False], "both": [True]},
    "falls to both": {"clean": [True], "rgb": [True], "skeleton": [True], "both": [False]},
    "falls to joints": {"clean": [True], "rgb": [True], "skeleton": [False], "both": [True]},
}  # fmt: skip
STANDING = {
    "clean": {"stands", "falls to the second", "falls to both", "falls to joints"},
    "rgb": {"stands", "falls to both", "falls to joints"},
    "skeleton": {"stands", "falls to the second", "falls to both"},
    "both": {"stands"},  # what one modality alone broke lies within the joint budget
}


@pytest.mark.parametrize("cell", STANDING)
@pytest.mark.parametrize("stored", [False, True])
def test_a_clip_stands_that_nothing_in_its_cell_broke(cell, stored, tmp_path):
    rows = [
        (clip, where, correct)
        for clip, cells in ROWS.items()
        for where, all_of_them in cells.items()
        for correct in all_of_them
    ]
    ids, cells, correct = zip(*rows, strict=True)
    table = pa.table({"clip_id": ids, "cell": cells, "correct": correct})
    path = tmp_path / "records.arrow"
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    found = verdicts(path if stored else table, cell)
    assert found == {clip: clip in STANDING[cell] for clip in ROWS}
