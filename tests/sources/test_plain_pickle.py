"""Pickles of plain data are read at every protocol; anything that would run code is refused."""

import collections
import pickle  # noqa: TID251 - writes the files that the reader is tried on
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import UserError
from components.sources.plain_pickle import StoredArray, read_plain


def loaded(value: Any) -> Any:
    """The same with arrays instead of stored ones."""
    if isinstance(value, StoredArray):
        return value.load()
    if isinstance(value, dict):
        return {k: loaded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(loaded(v) for v in value)
    return value


def write(path: Path, value: Any, protocol: int) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


ARRAYS = [
    np.arange(1200, dtype="f2").reshape(2, 8, 25, 3),
    np.arange(6, dtype=">i4").reshape(2, 3),
    np.asfortranarray(np.arange(900, dtype="f8").reshape(30, 30)),
    np.array([True, False]),
    np.zeros((0, 25, 3), "f4"),
    np.arange(256, dtype="u1").repeat(4),  # each byte, beyond 512 of them
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype.str}{a.shape}")
def test_arrays_come_back(tmp_path: Path, protocol: int, array: np.ndarray) -> None:
    path = write(tmp_path / "a.pkl", {"keypoint": array, "again": [array]}, protocol)
    back = loaded(read_plain(path))
    for got in (back["keypoint"], back["again"][0]):
        assert got.dtype == array.dtype and got.shape == array.shape
        assert (got == array).all()


PLAIN = {
    "split": {"xsub_train": ["S001C001P001R001A001"] * 3, "none": []},
    "annotations": [{"label": 7, "ok": True, "no": None, "size": (1080, 1920), "x": 1.5}],
    "long": "a letter ü " * 100, "big": 2**70, "bytes": b"\0\xff", "one": (1,), "three": (1, 2, 3),
    "numpy": np.int64(12), "four": (1, 2, 3, 4), "empty": (), 3: -1,
}  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_containers_come_back(tmp_path: Path, protocol: int) -> None:
    short = {k: v for k, v in PLAIN.items() if k != "long"}
    assert read_plain(write(tmp_path / "a.pkl", short, protocol)) == short


class Runs:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = (call, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", ["os.system", "builtins.eval", "builtins.open"])
def test_nothing_is_run(tmp_path: Path, protocol: int, function: str) -> None:
    import builtins
    import os

    target = tmp_path / "was-run"
    call = {
        "os.system": Runs(os.system, f"touch {target}"),
        "builtins.eval": Runs(builtins.eval, f"open({str(target)!r}, 'w')"),
        "builtins.open": Runs(builtins.open, str(target), "w"),
    }[function]
    path = write(tmp_path / "a.pkl", {"annotations": [call]}, protocol)
    with pytest.raises(UserError, match="nothing was run") as error:
        read_plain(path)
    assert str(path) in str(error.value) and function.split(".")[1] in str(error.value)
    assert not target.exists()
    pickle.loads(path.read_bytes())  # noqa: S301 - the file does what it was made for
    assert target.exists()


class Plain:
    def __init__(self) -> None:
        self.here = 1


OBJECTS = {
    "a class of its own": Plain(),
    "an array of objects": np.array([{}], dtype=object),
    "an array of text": np.array(["a"]),
    "a record array": np.zeros(2, [("x", "f4")]),
    "an ordered dict": collections.OrderedDict(a=1),
    "a set": {1, 2},
    "a function": len,
    "a slice": slice(1),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("kind", OBJECTS)
def test_other_things_are_refused(tmp_path: Path, protocol: int, kind: str) -> None:
    path = write(tmp_path / "a.pkl", [OBJECTS[kind]], protocol)
    with pytest.raises(UserError, match=str(path)):
        loaded(read_plain(path))


def test_codecs_may_only_encode_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")
    with pytest.raises(UserError, match="encode"):
        read_plain(path)


def test_every_cut_of_a_file_is_one_clear_error(tmp_path: Path) -> None:
    whole = pickle.dumps({"keypoint": ARRAYS[0], "x": [1, (2, "a")]}, protocol=2)
    path = tmp_path / "a.pkl"
    for end in [*range(60), *range(60, len(whole), 41), len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"a\.pkl"):
            read_plain(path)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from([op.code.encode("latin-1") for op in pickletools.opcodes])
        | st.binary(max_size=4),
        max_size=20,
    )
)
def test_any_program_is_data_or_one_clear_error(pieces: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.pkl"
        path.write_bytes(b"".join(pieces) + b".")
        try:
            read_plain(path)
        except UserError as error:
            assert str(path) in str(error)
