"""Clip names and protocols: the published counts, over the full lists of names."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config import from_dict
from components.config.data import DataSection
from components.ntu.classes import TWO_PERSON, class_name, class_names
from components.ntu.ids import ClipId, make_clip_id
from components.ntu.joints import JOINT_NAMES, mirror_order
from components.ntu.protocol import IMIGUE_TRAIN, Parts, assign
from components.ntu.roster import all_clips, missing_clips, subjects_by_setup

# protocol -> (train, test) of all clips, and what the official missing lists take from each;
# validation is part of train here. Published: 56,880 and 114,480 clips; 302 and 535 missing.
COUNTS = {
    "xsub60": ((40320, 16560), (229, 73)),
    "xview60": ((37920, 18960), (274, 28)),
    "xsub120": ((63360, 51120), (334, 201)),
    "xset120": ((54720, 59760), (252, 283)),
}


def parts_of(clips: list[ClipId]) -> Parts:
    table = np.array(clips, dtype=np.int64).reshape(-1, 5)
    return Parts(table[:, 0], table[:, 1], table[:, 2], table[:, 4])


@pytest.mark.parametrize("protocol", COUNTS)
def test_protocols_give_the_published_counts(protocol: str) -> None:
    clips = list(all_clips(int(protocol[-2:]) if protocol.endswith("60") else 120))
    (train, test), (train_missing, test_missing) = COUNTS[protocol]
    data = DataSection(protocol=protocol)
    whole = assign(parts_of(clips), data)
    assert (int((whole.train | whole.val).sum()), int(whole.test.sum())) == (train, test)
    assert not (whole.train & whole.val).any()
    assert not ((whole.train | whole.val) & whole.test).any()
    kept = [clip for clip in clips if str(clip) not in missing_clips()]
    left = assign(parts_of(kept), data)
    got = (int((left.train | left.val).sum()), int(left.test.sum()))
    assert got == (train - train_missing, test - test_missing)


def test_validation_subjects_of_cross_subject_60_give_the_published_counts() -> None:
    kept = [clip for clip in all_clips(60) if str(clip) not in missing_clips()]
    chosen = assign(parts_of(kept), DataSection(protocol="xsub60"))
    assert (int(chosen.train.sum()), int(chosen.val.sum())) == (37582, 2509)


def test_rosters_have_the_published_sizes_and_hold_the_missing_lists() -> None:
    names60, names120 = ({str(c) for c in all_clips(n)} for n in (60, 120))
    assert (len(names60), len(names120)) == (56880, 114480)
    assert names60 < names120 and missing_clips() < names120
    assert (len(missing_clips()), len(missing_clips() & names60)) == (535, 302)
    assert len({p for people in subjects_by_setup().values() for p in people}) == 106


def test_protocol_60_leaves_later_actions_outside() -> None:
    chosen = assign(parts_of(list(all_clips(120))), DataSection(protocol="xsub60"))
    assert int(chosen.outside.sum()) == 114480 - 56880


def test_imigue_has_37_training_subjects() -> None:
    assert len(set(IMIGUE_TRAIN)) == 37


@given(st.lists(st.integers(1, 999), min_size=5, max_size=5))
def test_names_survive_a_round_trip(numbers: list[int]) -> None:
    clip = make_clip_id(*numbers)
    assert ClipId.parse(str(clip)) == clip == tuple(numbers)


@given(st.text(max_size=30))
def test_other_text_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match="clip name"):
        ClipId.parse(text)


@pytest.mark.parametrize("name", ["S001C001P001R000A001", "S000C001P001R001A001"])
def test_numbers_start_at_one(name: str) -> None:
    with pytest.raises(ValueError, match="start at 1"):
        ClipId.parse(name)


def test_a_number_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="setup 1000"):
        make_clip_id(1000, 1, 1, 1, 1)


def test_class_names() -> None:
    assert len(set(class_names())) == 120
    assert class_name(1) == "drink water" and class_name(60).startswith("walking apart")
    assert class_name(200) == "A200"
    assert len(TWO_PERSON) == 11 + 15


def test_mirror_swaps_left_and_right_and_undoes_itself() -> None:
    order = mirror_order()
    assert [order[i] for i in order] == list(range(25))
    assert JOINT_NAMES[order[JOINT_NAMES.index("ElbowL")]] == "ElbowR"
    assert order[JOINT_NAMES.index("Head")] == JOINT_NAMES.index("Head")
    assert sum(i != j for i, j in enumerate(order)) == 20


def small(subjects: list[int], setups: list[int] | None = None) -> Parts:
    n = len(subjects)
    setup = np.array(setups or [1] * n)
    return Parts(setup, np.ones(n, int), np.array(subjects), np.arange(1, n + 1) % 60 + 1)


def custom(**keys: object) -> DataSection:
    return from_dict({"data": {"protocol": "custom", **keys}}).data


def test_validation_is_carved_from_training_subjects() -> None:
    chosen = assign(
        small([1, 2, 3, 4, 5]), custom(custom={"subjects": [1, 3, 5]}, val_subjects=[5, 2])
    )
    assert chosen.val.tolist() == [False, False, False, False, True]
    assert chosen.test.tolist() == [False, True, False, True, False]


def test_validation_falls_back_to_the_last_training_subject_and_says_so() -> None:
    chosen = assign(small([1, 2, 3, 4]), custom(custom={"subjects": [1, 3]}, val_subjects=[9]))
    assert chosen.val.tolist() == [False, False, True, False]
    assert "last training subject 3" in chosen.notes[0]


def test_validation_setups_go_first() -> None:
    parts = small([1, 1, 1, 2], setups=[1, 2, 3, 1])
    chosen = assign(parts, custom(custom={"subjects": [1]}, val_setups=[2]))
    assert chosen.val.tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"custom": {"subjects": [7]}}, "no clip to train on"),
        ({"custom": {"subjects": [1, 2, 3]}}, "no clip to test on"),
        ({"custom": {"subjects": [1]}}, "no validation set"),
        ({"custom": {"subjects": [1, 2]}, "val_subjects": [1, 2]}, "takes every training clip"),
    ],
)
def test_an_empty_split_is_an_error_that_says_what_to_change(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assign(small([1, 2, 3]), custom(**keys))
