"""Ten thousand damaged skeleton files and five hundred damaged videos: parsed or rejected."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks._ntu_files import write_skeleton, write_video
from components.ntu.people import choose_people
from components.ntu.skeleton import Rejected, parse_skeleton
from components.shards.raw import look_at_all
from components.sources import get_source
from components.sources.ingest import keep

REASONS = {"skeleton-empty", "skeleton-truncated", "skeleton-malformed", "no-body"}
NUMBERS = [b"nan", b"inf", b"-1", b"0", b"1e400", b"65536", b"9" * 30, b"x", b"\xff", b"2", b""]


def damage_text(data: bytes, rng: random.Random) -> bytes:
    """One to four random faults: cut, flipped bytes, lost, doubled or strange tokens and lines."""
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(7)
        at = rng.randrange(len(data) + 1)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data = (
                data[:at] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 8))) + data[at:]
            )
        elif kind == 2:
            data = data[:at] + data[at + rng.randint(1, 60) :]
        elif kind == 6:
            data = data[:at] + data[max(0, at - rng.randint(1, 400)) :]
        else:
            separator = b"\n" if kind == 3 else b" "
            parts = data.split(separator)
            place = rng.randrange(len(parts))
            if kind == 5:
                del parts[place]
            else:
                parts[place] = rng.choice(NUMBERS)
            data = separator.join(parts)
    return data


@pytest.mark.slow
def test_ten_thousand_damaged_skeletons(tmp_path: Path) -> None:
    bases = []
    for bodies in (1, 2):
        write_skeleton(tmp_path / "s", 3, seed=bodies, bodies=bodies)
        bases.append((tmp_path / "s").read_bytes())
    rng = random.Random(0)
    outcomes: Counter[str] = Counter()
    for case in range(10_000):
        data = damage_text(bases[case % 2], rng)
        try:
            people = choose_people(parse_skeleton(data))
        except Rejected as error:
            assert error.reason in REASONS, (case, error)
            outcomes[error.reason] += 1
        else:
            assert np.isfinite(people.joints).all(), case
            assert not people.joints[~people.present].any(), case
            assert people.present.any() and len(people.joints) == len(people.present), case
            outcomes["parsed"] += 1
    # The faults reach every way out.
    assert outcomes["parsed"] > 500 and REASONS - {"no-body"} <= outcomes.keys(), outcomes


def damage_video(data: bytes, rng: random.Random) -> bytes:
    body = bytearray(data)
    kind = rng.randrange(4)
    if kind == 0:
        return bytes(body[: rng.randrange(len(body))])
    if kind == 1:  # header and index fields
        for _ in range(rng.randint(1, 20)):
            body[rng.randrange(min(2000, len(body)))] = rng.randrange(256)
    elif kind == 2:
        for _ in range(rng.randint(1, 200)):
            body[rng.randrange(len(body))] = rng.randrange(256)
    else:
        at = rng.randrange(len(body))
        del body[at : at + rng.randint(1, 3000)]
    return bytes(body)


@pytest.mark.slow
def test_five_hundred_damaged_videos_among_valid_clips(tmp_path: Path) -> None:
    rgb, skeletons = tmp_path / "rgb", tmp_path / "skeletons"
    rgb.mkdir()
    skeletons.mkdir()
    write_video(rgb / "base", 16, 96, 54)
    write_skeleton(skeletons / "base", 16)
    base = (rgb / "base").read_bytes()
    rng = random.Random(1)
    valid = set()
    for case in range(550):
        name = f"S001C001P{case // 100 + 1:03d}R001A{case % 100 + 1:03d}"
        (skeletons / f"{name}.skeleton").hardlink_to(skeletons / "base")
        whole = case % 11 == 0
        (rgb / f"{name}_rgb.avi").write_bytes(base if whole else damage_video(base, rng))
        if whole:
            valid.add(name)
    source = get_source("ntu")
    listing = source.find(tmp_path)
    assert len(listing.clips) == 550 and len(valid) == 50
    looks = look_at_all(source, tmp_path, listing.clips)
    accepted = {str(seen.found.clip) for seen in looks if not seen.reason}
    assert valid <= accepted
    assert {seen.reason for seen in looks} == {"", "video-unreadable", "video-truncated"}
    read = set()
    for seen in looks:
        if seen.reason:
            continue
        try:
            kept = keep(
                source,
                tmp_path,
                seen.found,
                frames=4,
                size=16,
                margin=0.1,
                expected=seen.rgb_frames,
            )
        except Rejected as error:
            assert error.reason in ("video-unreadable", "video-truncated")
            continue
        assert kept.rgb.shape == (4, 16, 16, 3)
        read.add(str(seen.found.clip))
    assert valid <= read
