"""Reads pickles of plain containers and numpy arrays without unpickling: no code of theirs runs.

A pickle is a program; Python's reader runs it, whatever it calls. Here its opcodes are only parsed
(`pickletools.genops`) and followed by a small machine that knows dicts, lists, tuples, numbers,
texts and the handful of forms in which numpy writes an array. Anything else is an error that names
what the file asks for and where. Protocols 0 to 5.
"""

import math
import os
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from components.errors import UserError

_LARGE = 512  # bytes; longer data stays in the file until its array is asked for
_DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248])")
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_ALLOWED = {
    **{(module, "_reconstruct"): "empty array" for module in _MULTIARRAY},
    **{(module, "scalar"): "scalar" for module in _MULTIARRAY},
    **{(module, "_frombuffer"): "array of buffer" for module in _NUMERIC},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    **{(module, "bytes"): "no bytes" for module in ("builtins", "__builtin__")},
}
# Bytes between an opcode and its data.
_BEFORE_DATA = {
    **{"BINBYTES": 5, "SHORT_BINBYTES": 2, "BINBYTES8": 9, "BYTEARRAY8": 9},
    **{"BINUNICODE": 5, "SHORT_BINUNICODE": 2, "BINUNICODE8": 9},
    **{"BINSTRING": 5, "SHORT_BINSTRING": 2},
}
_NUMBERS = {
    *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "UNICODE"),
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MARK = object()


@dataclass(frozen=True)
class _Blob:
    """Data that lies in the file: `size` bytes at `start`; `text`: as UTF-8 of Latin-1 letters."""

    start: int
    size: int
    text: bool = False


@dataclass(frozen=True)
class _Call:
    """A name that a pickle may call."""

    kind: str


@dataclass
class _Type:
    """A dtype, whose byte order comes after it."""

    dtype: np.dtype


class _Fault(Exception):
    """What is wrong with the file."""


@dataclass
class StoredArray:
    """A numpy array whose numbers are read when `load` is called."""

    path: Path
    shape: tuple[int, ...] = ()
    dtype: np.dtype = np.dtype("u1")
    fortran: bool = False
    data: _Blob | bytes | None = None

    def load(self) -> np.ndarray:
        """The array. UserError when its data is not of the promised size."""
        data = self.data
        if isinstance(data, _Blob):
            with self.path.open("rb") as file:
                file.seek(data.start)
                raw = file.read(data.size)
            data = raw.decode().encode("latin-1") if data.text else raw
        if data is None or len(data) != math.prod(self.shape) * self.dtype.itemsize:
            raise UserError(f"{self.path}: an array of shape {self.shape} lacks its numbers")
        numbers = np.frombuffer(data, self.dtype)
        return numbers.reshape(self.shape, order="F" if self.fortran else "C")


def read_plain(path: Path) -> Any:
    """What a pickle holds; each array as a `StoredArray`.

    UserError for a file that is no pickle, is cut off, or asks for anything but plain data.
    """
    try:
        with path.open("rb") as file:
            return _Machine(path, file).run()
    except _Fault as fault:
        raise UserError(f"{path}: {fault}") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # pickletools and the machine raise these for bytes that are no pickle or only half of one.
        raise UserError(f"{path} is no whole pickle ({error}); fetch it again") from error


class _Bounded:
    """A file that is never asked for more than it holds, whatever length a pickle promises."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = os.fstat(file.fileno()).st_size
        self.readline, self.tell = file.readline, file.tell

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        return self.file.read(min(size, max(0, self.size - self.file.tell())))


class _Machine:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, _Bounded(file)
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for opcode, value, position in pickletools.genops(self.file):  # type: ignore[arg-type]
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _BEFORE_DATA:
                self.stack.append(self._data(name, value, position or 0))
            elif name in _NUMBERS:
                self.stack.append(value)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _ACTIONS:
                _ACTIONS[name](self, value)
            else:
                raise _Fault(
                    f"byte {position} asks for {name}, which builds more than plain containers and "
                    "numpy arrays; nothing was run. Write the file again with those alone"
                )
        raise _Fault("the pickle has no end")

    def _data(self, name: str, value: Any, position: int) -> Any:
        start = position + _BEFORE_DATA[name]
        size = self.file.tell() - start
        if size <= _LARGE:
            return bytes(value) if name == "BYTEARRAY8" else value
        return _Blob(start, size, "UNICODE" in name)

    def items(self) -> list[Any]:
        """What lies above the last mark, which goes too."""
        at = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        taken = self.stack[at + 1 :]
        del self.stack[at:]
        return taken

    def take(self, count: int) -> list[Any]:
        """The topmost things, in the order in which they were put there."""
        if len(self.stack) < count:
            raise ValueError("too little on the stack")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def name(self, module: Any, attribute: Any) -> None:
        kind = _ALLOWED.get((module, attribute)) if isinstance(module, str) else None
        if kind is None:
            raise _Fault(
                f"it asks for {module}.{attribute}, which is no numpy array or plain container; "
                "nothing was run. Do not open this file with pickle.load"
            )
        self.stack.append(_Call(kind))

    def call(self) -> None:
        function, arguments = self.take(2)
        kind = function.kind if isinstance(function, _Call) else ""
        if kind == "encode" and arguments[1] in ("latin1", "latin-1"):
            text = arguments[0]
            self.stack.append(text if isinstance(text, _Blob) else text.encode("latin-1"))
        elif kind == "no bytes" and arguments == ():
            self.stack.append(b"")
        elif kind == "dtype":
            self.stack.append(_Type(_dtype(arguments[0])))
        elif kind == "empty array" and arguments[0] == _Call("ndarray"):
            self.stack.append(StoredArray(self.path))
        elif kind == "array of buffer":
            data, dtype, shape, order = arguments
            self.stack.append(self._array(data, dtype, shape, order == "F"))
        elif kind == "scalar" and len(arguments) == 2:
            array = self._array(arguments[1], arguments[0], (), False)
            self.stack.append(array.load().item())
        else:
            raise _Fault(f"it calls {kind or function!r} in a way that numpy's arrays do not")

    def build(self) -> None:
        built, state = self.take(2)
        if isinstance(built, _Type):
            built.dtype = _dtype(state[1] + built.dtype.str[1:])
        elif isinstance(built, StoredArray):  # filled, not replaced: the memo has it already
            _, shape, dtype, fortran, data = state
            made = self._array(data, dtype, shape, bool(fortran))
            built.shape, built.dtype = made.shape, made.dtype
            built.fortran, built.data = made.fortran, made.data
        else:
            raise _Fault(f"it sets the state of a {type(built).__name__}")
        self.stack.append(built)

    def _array(self, data: Any, dtype: Any, shape: Any, fortran: bool) -> StoredArray:
        if not isinstance(dtype, _Type) or not isinstance(data, (bytes, _Blob)):
            raise _Fault("it has an array of objects, not of numbers")
        return StoredArray(self.path, _shape(shape), dtype.dtype, fortran, data)

    def put(self, key: int | None) -> None:
        self.memo[len(self.memo) if key is None else key] = self.stack[-1]


def _dtype(code: Any) -> np.dtype:
    if not isinstance(code, str) or not _DTYPE.fullmatch(code):
        raise _Fault(f"it has an array of type {code!r}, not of numbers")
    return np.dtype(code)


def _shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise _Fault(f"it has an array of shape {shape!r}")
    return shape


def _extend(machine: _Machine, items: list[Any]) -> None:
    _of(machine.stack[-1], list).extend(items)


def _update(machine: _Machine, items: list[Any]) -> None:
    _of(machine.stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))


def _of(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise _Fault(f"it fills a {type(value).__name__} like a {kind.__name__}")
    return value


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


_Action = Callable[[_Machine, Any], object]
_ACTIONS: dict[str, _Action] = {
    "PROTO": lambda m, v: None,
    "FRAME": lambda m, v: None,
    "MARK": lambda m, v: m.stack.append(_MARK),
    "POP": lambda m, v: m.take(1),
    "POP_MARK": lambda m, v: m.items(),
    "DUP": lambda m, v: m.stack.append(m.stack[-1]),
    "EMPTY_DICT": lambda m, v: m.stack.append({}),
    "EMPTY_LIST": lambda m, v: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, v: m.stack.append(()),
    "DICT": lambda m, v: m.stack.append(_pairs(m.items())),
    "LIST": lambda m, v: m.stack.append(m.items()),
    "TUPLE": lambda m, v: m.stack.append(tuple(m.items())),
    "TUPLE1": lambda m, v: m.stack.append(tuple(m.take(1))),
    "TUPLE2": lambda m, v: m.stack.append(tuple(m.take(2))),
    "TUPLE3": lambda m, v: m.stack.append(tuple(m.take(3))),
    "APPEND": lambda m, v: _extend(m, m.take(1)),
    "APPENDS": lambda m, v: _extend(m, m.items()),
    "SETITEM": lambda m, v: _update(m, m.take(2)),
    "SETITEMS": lambda m, v: _update(m, m.items()),
    "GLOBAL": lambda m, v: m.name(*v.split(" ", 1)),
    "STACK_GLOBAL": lambda m, v: m.name(*m.take(2)),
    "REDUCE": lambda m, v: m.call(),
    "BUILD": lambda m, v: m.build(),
    "MEMOIZE": lambda m, v: m.put(None),
    **{op: (lambda m, v: m.put(int(v))) for op in ("PUT", "BINPUT", "LONG_BINPUT")},
    **{
        op: (lambda m, v: m.stack.append(m.memo[int(v)])) for op in ("GET", "BINGET", "LONG_BINGET")
    },
}
