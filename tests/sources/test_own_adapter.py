"""The adapter printed in CONTRIBUTING.md works as printed, and has less than 60 lines."""

from pathlib import Path

import numpy as np

from benchmarks._ntu_files import write_video
from components.sources.ingest import keep, look
from tests._support.examples import examples


def test_the_printed_adapter_ingests_clips(tmp_path: Path) -> None:
    adapter = examples()["data set"]
    assert len(adapter.source.splitlines()) < 60
    module = adapter.module()
    for name in ("wave_p03_02", "bow_p01_01", "point_p02_01"):
        write_video(tmp_path / f"{name}.mp4", 12, 96, 54)
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=(12, 25, 3)))
    (tmp_path / "point_p02_01.npy").write_bytes(b"damaged")
    source = module.SOURCE
    clips = source.find(tmp_path).clips
    assert [str(found.clip) for found in clips] == [
        "S001C001P001R001A002",
        "S001C001P002R001A003",
        "S001C001P003R002A001",
    ]
    looks = [look(source, tmp_path, found) for found in clips]
    assert [seen.reason for seen in looks] == ["", "skeleton-malformed", ""]
    kept = keep(source, tmp_path, clips[2], frames=4, size=16, margin=0.1)
    assert kept.rgb.shape == (4, 16, 16, 3) and kept.people.persons == 1
    assert "whole-frame" in kept.flags
