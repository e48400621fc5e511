"""Flags and figures that are read off the records, held to tables by hand."""

import numpy as np
import pyarrow as pa
import pytest

from components.evaluation.metrics import Z95, accuracy, paired_difference, wilson
from components.evaluation.outcome_checks import check_records
from components.evaluation.records import WEIGHT
from components.evaluation.stream_checks import _contrast, check_streams, streams_of
from components.evaluation.suite import PGD20, Entry
from components.evaluation.summary import Records


def records(parts: dict, label) -> pa.Table:
    """Rows of {(cell, attack): {column: values}} for the same clips in each part."""
    n = len(label)
    tables = []
    for (cell, attack), columns in parts.items():
        weight = columns.get("weights")
        weights = [[] if weight is None else [{"place": "a", "group": 0, "rgb": w}]
                   for w in (weight if weight is not None else [0] * n)]  # fmt: skip
        given = {
            "clip_id": [f"c{i}" for i in range(n)], "label": pa.array(label, pa.int32()),
            "cell": [cell] * n, "attack": [attack] * n,
            "correct": list(map(bool, columns["correct"])),
            "weights": pa.array(weights, pa.list_(WEIGHT)),
        }  # fmt: skip
        for name in ("rgb_head", "skeleton_head"):
            right = columns.get(name)
            verdicts = [None] * n if right is None else [bool(x) for x in right]
            given[name] = pa.array(verdicts, pa.bool_())
        tables.append(pa.table(given))
    return pa.concat_tables(tables)


def first(k: int, n: int = 20) -> np.ndarray:
    return np.arange(n) < k


@pytest.mark.parametrize(
    ("rgb", "skeleton", "dead"),
    [(18, 18, ""), (8, 18, "rgb"), (18, 8, "skeleton"), (5, 0, "rgb and the skeleton"),
     (14, 14, "")],
)  # fmt: skip
def test_a_head_must_beat_the_most_frequent_class(rgb: int, skeleton: int, dead: str) -> None:
    """Eight clips of twenty are of one class; 14 right of 20 are surely more, 8 are not."""
    label = [0] * 8 + [1] * 7 + [2] * 5
    parts = {
        ("clean", "clean"): {
            "correct": first(18), "rgb_head": first(rgb), "skeleton_head": first(skeleton),
        },
        ("rgb", "pgd"): {"correct": first(5), "rgb_head": first(3), "skeleton_head": first(15)},
        ("both", "pgd"): {"correct": first(2), "rgb_head": first(2), "skeleton_head": first(4)},
        ("exchanged", "rgb"): {
            "correct": first(10), "rgb_head": first(1), "skeleton_head": first(1),
        },
        ("exchanged", "skeleton"): {"correct": first(18)},
    }  # fmt: skip
    table = records(parts, label)
    (found,) = check_streams(table)
    assert found["status"] == ("fail" if dead else "pass")
    assert found["message"].startswith(f"the {dead} stream does no better" if dead else "")
    assert (found["message"] == "") is (not dead)
    assert found["figures"] == {
        "chance": 0.4, "rgb_acc": rgb / 20, "rgb_low": wilson(rgb, 20)[0],
        "skeleton_acc": skeleton / 20, "skeleton_low": wilson(skeleton, 20)[0],
    }  # fmt: skip
    assert streams_of(Records(table)) == {
        "heads": {
            "clean": {"rgb": accuracy(first(rgb)), "skeleton": accuracy(first(skeleton))},
            "pgd": {
                "rgb": {"rgb": accuracy(first(3)), "skeleton": accuracy(first(15))},
                "both": {"rgb": accuracy(first(2)), "skeleton": accuracy(first(4))},
            },
        },
        "reliance": {
            "rgb": paired_difference(first(18), first(10)),
            "skeleton": paired_difference(first(18), first(18)),
        },
    }
    # Exactly as good as chance is not better.
    even = records({("clean", "clean"): {"correct": first(20), "rgb_head": first(20)}}, [0] * 20)
    assert check_streams(even)[0]["status"] == "fail"


def test_without_heads_a_stream_is_judged_by_its_exchange() -> None:
    clean = {("clean", "clean"): {"correct": first(18)}}
    for rgb, skeleton, status in ((4, 5, "pass"), (18, 5, "warn"), (4, 17, "warn")):
        exchanged = {("exchanged", "rgb"): rgb, ("exchanged", "skeleton"): skeleton}
        parts = clean | {key: {"correct": first(k)} for key, k in exchanged.items()}
        (found,) = check_streams(records(parts, [0, 1] * 10))
        assert found["status"] == status
        lost = {m: paired_difference(first(18), first(k)) for (_, m), k in exchanged.items()}
        assert found["figures"] == {
            "chance": 0.5, "rgb_reliance": lost["rgb"]["value"], "rgb_low": lost["rgb"]["low"],
            "skeleton_reliance": lost["skeleton"]["value"],
            "skeleton_low": lost["skeleton"]["low"],
        }  # fmt: skip
    assert streams_of(Records(records(clean, [0] * 20))) == {}
    for n, told in ((15, 0), (16, 1)):
        few = records({("clean", "clean"): {"correct": first(9, n)}}, [0] * n)
        assert len(check_streams(few)) == told


@pytest.mark.parametrize(("spread", "status"), [(0.0, "warn"), (0.019, "warn"), (0.021, "pass")])
def test_weights_that_hardly_differ_are_told(spread: float, status: str) -> None:
    near = 0.6 + spread * np.where(first(10), 1, -1)
    parts = {
        ("clean", "clean"): {"correct": first(18), "weights": near},
        ("rgb", "alone"): {"correct": first(9), "weights": near},
        ("rgb", "pgd"): {"correct": first(9), "weights": near},
        ("skeleton", "pgd"): {"correct": first(9), "weights": near[::-1]},
        ("exchanged", "rgb"): {"correct": first(2), "weights": [0.0] * 20},
    }  # fmt: skip
    _, found = check_streams(records(parts, [0, 1] * 10))
    assert (found["check"], found["status"]) == ("attention_inert", status)
    assert (found["message"] == "") is (status == "pass")
    assert found["figures"] == pytest.approx(
        {"mean": 0.6, "spread": spread, "contrast": 0.0,
         "contrast_error": Z95 * 2 * spread / 20**0.5}, abs=1e-6,
    )  # fmt: skip
    del parts["skeleton", "pgd"]
    _, found = check_streams(records(parts, [0, 1] * 10))
    assert found["figures"] == pytest.approx({"mean": 0.6, "spread": spread}, abs=1e-6)


def test_a_suite_without_a_pair_to_compare_raises_nothing() -> None:
    table = records({("clean", "clean"): {"correct": first(18)}}, [0, 1] * 10)
    for entries in ([PGD20], [Entry("fgsm", "fgsm")], []):
        one, other = check_records(table, entries, ("rgb",))
        assert (one["check"], one["status"], one["figures"]) == ("iterative", "pass", {})
        assert "no pair of FGSM and PGD-20" in one["message"]
        assert (other["check"], other["status"], other["figures"]) == ("black_box", "pass", {})
        assert "no black-box attack" in other["message"]
    for name in ("square", "transfer", "hard_label"):
        fell = {("clean", "clean"): {"correct": first(20)}, ("rgb", "x"): {"correct": first(12)}}
        found = check_records(records(fell, [0] * 20), [Entry("x", name)], ("rgb",))[1]
        assert (found["status"], found["figures"]["rgb"]) == ("fail", 0.4)
    fgsm = Entry("fgsm", "fgsm")
    assert check_records(table, [fgsm, PGD20], ())[0]["figures"] == {"clips": 18}
    for found in check_records(table, [fgsm, PGD20, Entry("square", "square")], ()):
        assert (found["status"], found["figures"]) == ("pass", {"clips": 18})


def test_the_contrast_is_that_of_an_attack_which_met_both_streams():
    """An attack on one modality alone says nothing of it; clips that one of both missed neither."""
    weights = {
        ("rgb", "alone"): {"a": 0.9},
        ("both", "pgd"): {"a": 0.1},
        ("rgb", "pgd"): {"a": 0.2, "b": 0.4, "only here": 0.0},
        ("skeleton", "pgd"): {"a": 0.5, "b": 0.5},
    }
    mean, error = _contrast(weights)
    assert mean == pytest.approx(0.2) and error == pytest.approx(Z95 * 0.1 / 2**0.5)
    assert _contrast({("rgb", "alone"): {"a": 0.9}, ("both", "pgd"): {"a": 0.1}}) is None
