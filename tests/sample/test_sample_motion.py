"""The plan and the body model: names, people, bones, and that video and joints show one scene."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from components.ntu.classes import TWO_PERSON as NTU_TWO_PERSON
from components.ntu.classes import class_name
from components.ntu.ids import ClipId
from components.ntu.roster import all_clips, missing_clips
from components.sample.body import PARENT, make_body, two_bones
from components.sample.camera import colour_pixels
from components.sample.plan import (
    ACTIONS,
    SUBJECTS,
    TWO_PERSON,
    Style,
    partners,
    performance_of,
    plan_clips,
    side_of,
)
from components.sample.recording import Recording, record
from components.sample.render import COLOURS, Look, render

STYLE = Style(seed=2, width=160, height=90, frames=(12, 14), skeleton_noise=0.02, subjects=20)
CLIPS = plan_clips(20, 40)


def test_default_sample_meets_its_promise() -> None:
    assert len(set(CLIPS)) == 40 * len(ACTIONS) and len(ACTIONS) >= 10
    assert len({c.subject for c in CLIPS}) == 20
    assert {c.camera for c in CLIPS} == {1, 2, 3} and {c.replication for c in CLIPS} == {1, 2}
    assert len({c.setup for c in CLIPS}) > 5
    assert len(TWO_PERSON & set(ACTIONS)) >= 2 and TWO_PERSON <= NTU_TWO_PERSON
    for action in ACTIONS:
        sides = [side_of(c.subject) for c in CLIPS if c.action == action]
        assert len(sides) == 40 and {"train", "val", "test"} == set(sides)


def test_classes_and_names_are_ntus_own() -> None:
    real = {str(clip) for clip in all_clips(60)}
    assert {str(c) for c in CLIPS} <= real
    assert not {str(c) for c in CLIPS} & missing_clips()
    for number, name in ACTIONS.items():
        assert name.split()[-1][:4] in class_name(number)


@pytest.mark.parametrize("subjects", [3, 7, 40])
def test_any_number_of_subjects_fills_every_split(subjects: int) -> None:
    assert {side_of(p) for p in SUBJECTS[:subjects]} == {"train", "val", "test"}
    assert {c.subject for c in plan_clips(subjects, subjects)} == set(SUBJECTS[:subjects])


def test_too_many_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="sample.clips_per_class=5000 is more than"):
        plan_clips(20, 5000)


def test_partners_never_cross_the_split() -> None:
    for subject in SUBJECTS[:20]:
        assert subject not in partners(subject, 20)
        assert {side_of(p) for p in partners(subject, 20)} == {side_of(subject)}


@pytest.mark.parametrize("action", ACTIONS)
def test_bones_keep_their_length_while_the_body_moves(action: int) -> None:
    clip = record(STYLE, next(c for c in CLIPS if c.action == action))
    for track in clip.tracks:
        assert np.isfinite(track.seen).all()
        bones = np.linalg.norm(track.true - track.true[:, np.maximum(PARENT, 0)], axis=-1)
        moving = [j for j in range(25) if j not in (0, 15, 19, 21, 22, 23, 24)]
        assert np.ptp(bones[:, moving], axis=0).max() < 0.02
        assert np.ptp(track.true, axis=0).max() > 0.01


def test_chain_reaches_its_target_or_points_at_it() -> None:
    start, pole = np.zeros((2, 3)), np.tile([0.0, -1.0, 0.0], (2, 1))
    near, far = np.array([0.2, 0.1, 0.1]), np.array([3.0, 0.0, 0.0])
    middle, end = two_bones(start, np.stack([near, far]), 0.3, 0.25, pole)
    np.testing.assert_allclose(end[0], near, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(middle, axis=1), 0.3)
    np.testing.assert_allclose(np.linalg.norm(end - middle, axis=1), 0.25)
    np.testing.assert_allclose(end[1] / np.linalg.norm(end[1]), [1, 0, 0])


def test_cameras_of_one_performance_see_the_same_movement() -> None:
    first = ClipId(1, 1, 8, 1, 7)
    others = [record(STYLE, first._replace(camera=c)) for c in (1, 2, 3)]
    for one, two in pairwise(others):
        a, b = one.tracks[0].true, two.tracks[0].true
        apart = np.linalg.norm(a[:, :, None] - a[:, None], axis=-1)
        np.testing.assert_allclose(apart, np.linalg.norm(b[:, :, None] - b[:, None], axis=-1))
        assert np.abs(a - b).max() > 0.3 and np.abs(one.tracks[0].seen - a).max() > 1e-3
    assert performance_of(first) == performance_of(first._replace(camera=3))
    assert not np.allclose(
        record(STYLE, first._replace(replication=2)).tracks[0].true[:12],
        others[0].tracks[0].true[:12],
    )


def test_subjects_have_their_own_bodies_and_keep_them() -> None:
    heights = [make_body(0, p).height for p in SUBJECTS]
    assert np.std(heights) > 0.04 and 1.4 < min(heights) and max(heights) < 2.0
    assert make_body(0, 8) == make_body(0, 8) != make_body(1, 8)


def test_noise_has_the_size_asked_for_and_none_means_none() -> None:
    name = next(c for c in CLIPS if c.action == 7)
    for noise in (0.01, 0.05):
        track = record(Style(**{**STYLE.__dict__, "skeleton_noise": noise}), name).tracks[0]
        error = (track.seen - track.true)[track.state == 2]
        assert 0.4 * noise < np.sqrt((error**2).mean()) < 2.5 * noise
    silent = record(Style(**{**STYLE.__dict__, "skeleton_noise": 0.0}), name).tracks[0]
    seen = silent.state == 2
    np.testing.assert_array_equal(silent.seen[seen], silent.true[seen])


def test_video_shows_the_body_where_the_joints_are() -> None:
    hits = []
    for name in CLIPS[::41]:
        clip = record(STYLE, name)
        frames = render(STYLE, clip)
        assert len(frames) == clip.frames and frames[0].shape == (90, 160, 3)
        if len(clip.tracks) > 1 or clip.held:  # something else may be before the shirt
            continue
        track = clip.tracks[0]
        shirt = np.array(Look(STYLE.seed, track.subject, name.setup).shirt, float)
        for t in range(0, clip.frames, 4):
            x, y = colour_pixels(track.true[t, 12] * 0.4 + track.true[t, 8] * 0.6) * 160 / 1920
            seen = frames[t][int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].mean((0, 1))
            hits.append(np.abs(seen - shirt).max() < 60)
    assert len(hits) > 10 and np.mean(hits) > 0.7


def test_hand_that_acts_reaches_the_head_only_in_the_head_classes() -> None:
    def nearest(action: int) -> float:
        found = []
        for name in [c for c in CLIPS if c.action == action][:8]:
            true = record(STYLE, name).tracks[0].true
            found.append(np.linalg.norm(true[:, [7, 11]] - true[:, 3:4], axis=-1).min())
        return float(np.median(found))

    assert max(map(nearest, (1, 3, 28))) < 0.3 < min(map(nearest, (10, 11, 12, 29, 34)))


def test_movement_twins_differ_in_depth_by_much_more_than_the_budget_on_joints() -> None:
    def ahead(action: int) -> float:
        """How far the foremost hand is before the chest in most of a clip, metres."""
        found = []
        for name in [c for c in CLIPS if c.action == action and c.camera == 1][:8]:
            true = record(STYLE, name).tracks[0].true
            hands = true[:, 20, None, 2] - true[:, [7, 11], 2]
            found.append(np.median(hands.max(axis=1)))
        return float(np.median(found))

    assert ahead(10) - ahead(34) > 0.15 and ahead(31) - ahead(7) > 0.15


def test_object_twins_move_alike_and_look_unlike() -> None:
    style = Style(**{**STYLE.__dict__, "width": 192, "height": 108})
    for twins in ((1, 3, 28), (11, 12, 29)):
        colours, places = [], []
        for action in twins:
            names = [c for c in CLIPS if c.action == action][:6]
            clips = [record(style, name) for name in names]
            places.append(np.mean([wrist_height(clip) for clip in clips]))
            assert len({clip.held[0].kind for clip in clips}) == 1
            colours.append(COLOURS[clips[0].held[0].kind])
        assert np.ptp(places) < 0.1
        apart = [np.abs(np.subtract(a, b)).max() for a, b in combinations(colours, 2)]
        assert min(apart) > 8 * 8  # eight times the budget on pixels, 8 of 255


def wrist_height(clip: Recording) -> float:
    """Height of the higher wrist above the hips, in the middle of a clip, metres."""
    true = clip.tracks[0].true[clip.frames // 2]
    return float(true[[6, 10], 1].max() - true[0, 1])
