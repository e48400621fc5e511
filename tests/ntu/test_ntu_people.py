"""Skeleton text and the choice of people: every fault that real files show."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.ntu.people import choose_people
from components.ntu.skeleton import Rejected, parse_skeleton

ID = 72057594037931101  # more than 2**53


def pose(x: float = 0.0, wide: bool = False) -> np.ndarray:
    """25 joints of a standing person, or of something wider than high."""
    rng = np.random.default_rng(7)
    joints = np.stack([rng.uniform(-0.2, 0.2, 25), np.linspace(-0.9, 0.8, 25)], axis=1)
    if wide:
        joints = joints[:, ::-1]
    return np.column_stack([joints[:, 0] + x, joints[:, 1], np.full(25, 3.0)])


def text(frames: list[list[tuple[int, np.ndarray]]], end: str = "\r\n", trail: str = "") -> bytes:
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for body, joints in bodies:
            lines += [f"{body} 0 1 1 1 1 0 0.1 0.2 2", "25"]
            lines += [
                f"{x:.5f} {y:.5f} {z:.5f} 250 200 {960 + 200 * x:.3f} {540 - 200 * y:.3f} 0 0 0 0 2"
                for x, y, z in joints
            ]
    return (end.join(line + trail for line in lines) + end).encode()


def moving(n: int, amount: float = 0.2, **kw: object) -> list[np.ndarray]:
    return [pose(amount * np.sin(i / 3), **kw) + [0, 0, 0] for i in range(n)]  # type: ignore[arg-type]


def test_ids_beyond_2_to_53_stay_apart() -> None:
    steps = [[(ID, a), (ID + 1, b)] for a, b in zip(moving(20), moving(20), strict=True)]
    found = parse_skeleton(text(steps))
    assert [body.id for body in found.bodies] == [ID, ID + 1]
    assert choose_people(found).persons == 2


@pytest.mark.parametrize(("end", "trail"), [("\n", ""), ("\r\n", ""), ("\n", "  \t"), ("\n\n", "")])
def test_line_ends_and_trailing_blanks_do_not_matter(end: str, trail: str) -> None:
    steps = [[(ID, joints)] for joints in moving(15)]
    plain = choose_people(parse_skeleton(text(steps)))
    other = choose_people(parse_skeleton(text(steps, end, trail)))
    np.testing.assert_array_equal(plain.joints, other.joints)
    assert plain.joints.shape == (15, 2, 25, 3) and plain.pixels.shape == (15, 2, 25, 2)
    np.testing.assert_allclose(plain.joints[3, 0], moving(15)[3], atol=1e-4)


def test_frames_without_a_body_keep_their_place_in_time() -> None:
    steps = [[], [], *([(ID, joints)] for joints in moving(20)), []]
    people = choose_people(parse_skeleton(text(steps)))
    assert people.present[:, 0].tolist() == [False] * 2 + [True] * 20 + [False]
    assert not people.joints[~people.present].any()
    assert {"empty-start", "frames-without-body"} <= people.flags


def test_a_body_that_vanishes_and_returns_does_not_move_in_time() -> None:
    bodies = moving(40)
    steps = [[(ID, bodies[i])] if not 10 <= i < 25 else [] for i in range(40)]
    people = choose_people(parse_skeleton(text(steps)))
    np.testing.assert_allclose(people.joints[30, 0], bodies[30], atol=1e-4)
    assert people.present[:, 0].tolist() == [not 10 <= i < 25 for i in range(40)]


def test_a_body_that_returns_under_a_new_id_fills_the_same_slot() -> None:
    bodies = moving(40)
    steps = [[(ID if i < 20 else ID + 5, bodies[i])] for i in range(40)]
    people = choose_people(parse_skeleton(text(steps)))
    assert people.persons == 1 and people.present[:, 0].all() and "body-joined" in people.flags


def test_furniture_is_dropped_and_the_actor_stays() -> None:
    actor, chair = moving(40), moving(40, 0.0, wide=True)
    steps = [[(ID, chair[i]), (ID + 1, actor[i])] for i in range(40)]
    people = choose_people(parse_skeleton(text(steps)))
    assert (people.persons, people.ghosts, people.bodies) == (1, 1, 2)
    np.testing.assert_allclose(people.joints[5, 0], actor[5], atol=1e-4)


def test_a_lying_actor_alone_is_no_furniture() -> None:
    steps = [[(ID, joints)] for joints in moving(30, wide=True)]
    people = choose_people(parse_skeleton(text(steps)))
    assert people.persons == 1 and people.ghosts == 0


def test_flickers_of_eleven_frames_are_dropped_and_of_twelve_kept() -> None:
    for length, persons in ((11, 1), (12, 2)):
        steps = [[(ID, joints)] for joints in moving(40)]
        for i in range(length):
            steps[i].append((ID + 1, pose(1.0 + 0.1 * i)))
        assert choose_people(parse_skeleton(text(steps))).persons == persons


def test_of_short_bodies_alone_the_longest_stays() -> None:
    steps = [[(ID + i // 4, pose(0.1 * i))] for i in range(10)]
    people = choose_people(parse_skeleton(text(steps)))
    assert people.persons == 1 and people.present[:, 0].sum() == 4


def test_main_actor_moves_most_and_a_third_body_is_left_out() -> None:
    parts = {ID: moving(40, 0.05), ID + 1: moving(40, 0.9), ID + 2: moving(40, 0.4)}
    steps = [[(i, poses[t]) for i, poses in parts.items()] for t in range(40)]
    people = choose_people(parse_skeleton(text(steps)))
    np.testing.assert_allclose(people.joints[9, 0], parts[ID + 1][9], atol=1e-4)
    np.testing.assert_allclose(people.joints[9, 1], parts[ID + 2][9], atol=1e-4)
    assert "third-body-left-out" in people.flags and people.bodies == 3


def test_nan_and_zero_joints_take_their_nearest_place_in_time() -> None:
    bodies = moving(20)
    bodies[7][4] = np.nan
    bodies[8][4] = 0.0
    people = choose_people(parse_skeleton(text([[(ID, joints)] for joints in bodies])))
    np.testing.assert_allclose(people.joints[7, 0, 4], bodies[6][4], atol=1e-4)
    np.testing.assert_allclose(people.joints[8, 0, 4], bodies[9][4], atol=1e-4)
    assert np.isfinite(people.joints).all() and "joints-repaired" in people.flags


def test_frames_of_zeros_or_nan_count_as_absent() -> None:
    bodies = moving(30)
    bodies[3][:], bodies[4][:] = 0.0, np.nan
    people = choose_people(parse_skeleton(text([[(ID, joints)] for joints in bodies])))
    assert np.flatnonzero(~people.present[:, 0]).tolist() == [3, 4]
    assert "invalid-frames" in people.flags


def test_a_joint_that_is_never_seen_stays_with_its_body() -> None:
    bodies = moving(15)
    for joints in bodies:
        joints[22] = 0.0
    people = choose_people(parse_skeleton(text([[(ID, joints)] for joints in bodies])))
    np.testing.assert_allclose(people.joints[:, 0, 22, 2], 3.0, atol=1e-4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "skeleton-empty"),
        (b"  \r\n ", "skeleton-empty"),
        (b"0\r\n", "skeleton-empty"),
        (b"5\r\n0\r\n", "skeleton-truncated"),
        (b"-3\n", "skeleton-malformed"),
        (b"99999999999999999999999\n", "skeleton-malformed"),
        (b"\x00\xff\xfe", "skeleton-malformed"),
        (b"1\n1\n7 0 0 0 0 0 0 0 0 2\n20\n", "skeleton-malformed"),
    ],
)
def test_what_is_no_skeleton_is_rejected_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_skeleton(data)
    assert caught.value.reason == reason


def test_bodies_everywhere_but_none_usable_is_rejected() -> None:
    zeros = [[(ID, np.zeros((25, 3)))] for _ in range(5)]
    for steps in ([[], []], zeros):
        with pytest.raises(Rejected, match="no-body"):
            choose_people(parse_skeleton(text(steps)))


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0.0, 0.999))
def test_a_file_cut_anywhere_is_rejected_or_whole(cut: float) -> None:
    whole = text([[(ID, joints)] for joints in moving(6)])
    try:
        people = choose_people(parse_skeleton(whole[: int(len(whole) * cut)]))
    except Rejected as error:
        assert error.reason in ("skeleton-empty", "skeleton-truncated", "skeleton-malformed")
    else:
        # The last number may lose digits unseen; everything else must be there.
        assert people.present.shape == (6, 2)


@settings(max_examples=40, deadline=None)
@given(
    seen=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=13, max_size=40),
)
def test_whoever_is_placed_is_where_the_file_says(seen: list[list[bool]]) -> None:
    parts = [moving(len(seen), 0.1 * (i + 1)) for i in range(3)]
    steps = [[(ID + i, parts[i][t]) for i in range(3) if row[i]] for t, row in enumerate(seen)]
    if not any(map(any, seen)):
        return
    people = choose_people(parse_skeleton(text(steps)))
    for t, m in zip(*np.nonzero(people.present), strict=True):
        near = [np.abs(people.joints[t, m] - parts[i][t]).max() for i in range(3) if seen[t][i]]
        assert min(near) < 1e-4
    assert not people.joints[~people.present].any()
