"""Figures over several seeds: what the mean, its spread and its paired interval say."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.evaluation.bootstrap import over_seeds
from components.reporting.over_seeds import seeds_table, summarise_seeds


def test_mean_spread_and_interval_of_known_verdicts() -> None:
    rows = [[1] * 60 + [0] * 40, [1] * 70 + [0] * 30, [1] * 80 + [0] * 20]
    found = over_seeds(rows)
    assert found["value"] == pytest.approx(0.7) and found["n"] == 100
    assert found["std"] == pytest.approx(0.1)
    assert found["per_seed"] == pytest.approx([0.6, 0.7, 0.8])
    # Clips alone give 0.7 +- 1.96 * 0.045; seeds that differ make it wider.
    assert found["low"] < 0.61 and found["high"] > 0.79
    assert over_seeds(rows) == found


def test_the_interval_covers_what_was_drawn_from() -> None:
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        levels = np.clip(generator.normal(0.6, 0.04, 8), 0, 1)
        found = over_seeds(generator.random((8, 200)) < levels[:, None])
        inside += found["low"] <= 0.6 <= found["high"]
    assert 180 <= inside <= 200  # 95 % of 200 is 190; eight seeds are few


def test_one_seed_has_no_spread_and_the_interval_of_its_clips() -> None:
    found = over_seeds([[1] * 50 + [0] * 50])
    assert found["std"] is None
    assert found["low"] == pytest.approx(0.40, abs=0.02)
    assert found["high"] == pytest.approx(0.60, abs=0.02)


def test_a_paired_difference_is_narrower_than_two_separate_intervals() -> None:
    hard = np.random.default_rng(0).random((3, 300)) < 0.5
    better = hard.copy()
    better[:, :15] = True
    alone, gap = over_seeds(hard), over_seeds(better.astype(int) - hard.astype(int))
    assert 0 < gap["low"] < gap["value"] < gap["high"]
    assert gap["high"] - gap["low"] < (alone["high"] - alone["low"]) / 2
    same = over_seeds(np.zeros((3, 300)))
    assert (same["value"], same["low"], same["high"]) == (0, 0, 0)


@pytest.mark.parametrize("rows", [[], [[]], [1, 0, 1]])
def test_what_is_no_table_is_an_error(rows: list) -> None:
    with pytest.raises(ValueError, match="one row of clips a seed"):
        over_seeds(rows)


def write_records(folder: Path, model: str, right: dict[str, dict[str, bool]]) -> None:
    rows = [
        {"clip_id": clip, "cell": cell, "correct": verdict}
        for cell, clips in right.items()
        for clip, verdict in clips.items()
    ]
    path = folder / "evaluation" / f"{model}.arrow"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def all_cells(clean: str, both: str) -> dict[str, dict[str, bool]]:
    """Verdicts of clips a, b, c, ... written as 1 and 0; rgb and skeleton as clean."""
    read = {name: {chr(97 + i): bit == "1" for i, bit in enumerate(bits)}
            for name, bits in (("clean", clean), ("both", both))}  # fmt: skip
    return {"clean": read["clean"], "rgb": read["clean"], "skeleton": read["clean"],
            "both": read["both"]}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_records(tmp_path, "amr-s4", all_cells("1111", "1110"))
    write_records(tmp_path, "amr-s5", all_cells("1110", "1100"))
    for seed in (4, 5):
        write_records(tmp_path, f"mmtm-s{seed}", all_cells("1110", "1000"))
    return tmp_path / "evaluation"


RUNS = {
    f"{variant}-s{seed}": {"variant": variant, "seed": seed, "suite": "thin"}
    for variant in ("amr", "mmtm")
    for seed in (4, 5)
}


def test_records_of_all_seeds_become_one_table(folder: Path) -> None:
    body = summarise_seeds(folder, RUNS, [])
    assert (body["seeds"], body["clips"]) == ([4, 5], 4)
    assert body["models"]["amr"]["clean"]["per_seed"] == [1.0, 0.75]
    assert body["models"]["amr"]["both"]["value"] == pytest.approx(0.625)
    assert body["models"]["mmtm"]["both"]["std"] == 0
    gaps = {found["cell"]: found for found in body["differences"]}
    assert gaps["both"]["per_seed"] == pytest.approx([0.5, 0.25])
    assert {(g["model"], g["other"]) for g in gaps.values()} == {("amr", "mmtm")}
    text = seeds_table(body)
    assert "62.5 ±17.7" in text and "amr - mmtm" in text and "+37.5" in text


def test_only_seeds_that_every_variant_has_are_compared(folder: Path) -> None:
    without = {run: body for run, body in RUNS.items() if run != "mmtm-s5"}
    assert summarise_seeds(folder, without, []) == {}


def test_seeds_tested_on_different_clips_are_no_table(folder: Path) -> None:
    write_records(folder.parent, "amr-s5", all_cells("111", "110"))
    notes: list[str] = []
    assert summarise_seeds(folder, RUNS, notes) == {}
    assert notes == ["amr-s5 was tested on other clips: no figures over seeds"]
