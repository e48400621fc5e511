"""Random access to sealed shards: memory-mapped, checked on open, without a copy for raw frames."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.ntu.joints import JOINTS, PEOPLE
from components.shards.cache import Cache
from components.shards.schema import ShardError, decode_jpeg, read_settings
from components.shards.sealing import read_index
from components.shards.storage import Store, hash_file, open_store

DEFAULT_CACHE = Path.home() / ".cache" / "amr-robust-pipeline" / "shards"
_checked: set[tuple[str, int, int, str]] = set()  # files this process has hashed already


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip as it lies in a shard; arrays are read-only views where the codec allows it.

    rgb uint8 [N, H, W, 3]; rgb_index int32 [N] true frame numbers; skeleton float32
    [F, 2, 25, 3] in the source's unit (metres for Kinect); present bool [F, 2].
    Frame i of a stream was taken at i / its fps seconds; both streams start together.
    """

    clip_id: str
    setup: int
    camera: int
    subject: int
    replication: int
    action: int
    rgb: np.ndarray
    rgb_index: np.ndarray
    skeleton: np.ndarray
    present: np.ndarray
    num_rgb_frames: int
    num_skeleton_frames: int
    rgb_fps: float
    skeleton_fps: float


class _Shard:
    """One mapped file: where each of its rows lies in the mapped buffers."""

    def __init__(self, path: Path, name: str, rows: int) -> None:
        self.name = name
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path), "rb"))
            self.settings = read_settings(reader.schema, name)
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (pa.ArrowInvalid, OSError) as error:
            raise ShardError(f"{name} is damaged or no Arrow file: {error}") from error
        if sum(b.num_rows for b in batches) != rows:
            raise ShardError(f"{name} has {sum(b.num_rows for b in batches)} rows, not {rows}")
        self.rows = [_Rows(batch, r) for batch in batches for r in range(batch.num_rows)]


class _Rows:
    """The buffers of one row."""

    __slots__ = ("batch", "row")

    def __init__(self, batch: pa.RecordBatch, row: int) -> None:
        self.batch, self.row = batch, row

    def numbers(self, column: str, width: int, dtype: type) -> np.ndarray:
        """The values of a list column of this row as [n, width], a view."""
        cells = self.batch.column(column)
        start, stop = (cells.offsets[self.row + i].as_py() for i in range(2))
        flat = cells.values.flatten() if width > 1 else cells.values
        values = flat.to_numpy(zero_copy_only=True)[start * width : stop * width]
        return values.reshape(-1, width).view(dtype)

    def frames(self) -> tuple[np.ndarray, np.ndarray]:
        """(all bytes of the row's frames as one view, offsets int64 [N + 1] into it)."""
        cells = self.batch.column("rgb")
        start, stop = (cells.offsets[self.row + i].as_py() for i in range(2))
        _, offsets, data = cells.values.buffers()
        places = np.frombuffer(offsets, np.int64)[start : stop + 1]
        return np.frombuffer(data, np.uint8)[places[0] : places[-1]], places - places[0]


class ShardSet:
    """A sealed folder of shards, one row a clip. Cheap to open, safe to share between threads."""

    def __init__(self, store: Store, cache: Cache | None) -> None:
        self.store = store
        self.cache = cache
        self.index, self.meta = read_index(store)
        self.codec: str = self.index["codec"]
        self.size: int = self.index["size"]
        self.frames: int = self.index["frames"]
        self.source: str = self.index["source"]
        self.unit: str = self.index["unit"]
        self.fingerprint: str = self.index["fingerprint"]
        self.clip_ids: list[str] = self.meta.column("clip_id").to_pylist()
        self._entries: list[dict[str, Any]] = self.index["shards"]
        counts = [entry["rows"] for entry in self._entries]
        self._starts = np.cumsum([0, *counts])
        self._facts = {
            name: self.meta.column(name).to_numpy()
            for name in (
                *("setup", "camera", "subject", "replication", "action"),
                *("num_rgb_frames", "num_skeleton_frames", "rgb_fps", "skeleton_fps"),
            )
        }
        self._open: dict[int, _Shard] = {}
        self._clips: dict[int, Clip] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        where: str | Path,
        cache_dir: str | Path | None = None,
        cache_gb: float = 20.0,
        *,
        verify: bool = True,
    ) -> "ShardSet":
        """Open a folder or URI of shards that the shard stage has sealed.

        Local shards are hashed once a process and held against the index (`verify=False` leaves
        that out, for workers beside a process that has done it); remote ones when they are
        fetched into the cache. Raises ShardError naming the file that is missing, damaged,
        foreign or of another version.
        """
        store = open_store(where)
        cache = None
        if store.local is None:
            cache = Cache(Path(cache_dir or DEFAULT_CACHE), int(cache_gb * 2**30))
        shards = cls(store, cache)
        shards._check_files(hashes=verify)
        return shards

    def __len__(self) -> int:
        return len(self.clip_ids)

    def __reduce__(self) -> tuple[Callable[..., "ShardSet"], tuple[Any, ...]]:
        cache = self.cache
        folder = str(cache.folder) if cache else None
        return _reopen, (self.store.uri, folder, cache.limit / 2**30 if cache else 20.0)

    def clip(self, i: int) -> Clip:
        """The clip in row `i`, 0 <= i < len."""
        known = self._clips.get(i)
        if known is not None:
            return known
        if not 0 <= i < len(self):
            raise IndexError(f"row {i} of {len(self)} clips")
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        with self._lock:
            shard = self._shard(number)
        row = shard.rows[i - int(self._starts[number])]
        clip = self._read(i, row, shard.name)
        # Views cost a few hundred bytes; decoded JPEGs and remote maps must be free to go.
        if self.codec == "raw" and self.cache is None:
            self._clips[i] = clip
        return clip

    def _read(self, i: int, row: _Rows, name: str) -> Clip:
        data, offsets = row.frames()
        if self.codec == "raw":
            rgb = data.reshape(-1, self.size, self.size, 3)
        else:
            parts = zip(offsets[:-1], offsets[1:], strict=True)
            rgb = np.stack([decode_jpeg(data[a:b].tobytes(), self.size, name) for a, b in parts])
        facts = {key: values[i].item() for key, values in self._facts.items()}
        return Clip(
            clip_id=self.clip_ids[i],
            rgb=rgb,
            rgb_index=row.numbers("rgb_index", 1, np.int32)[:, 0],
            skeleton=row.numbers("skeleton", PEOPLE * JOINTS * 3, np.float32).reshape(
                -1, PEOPLE, JOINTS, 3
            ),
            present=row.numbers("present", PEOPLE, np.bool_),
            **facts,
        )

    def _shard(self, number: int) -> _Shard:
        opened = self._open.get(number)
        if opened is None:
            entry = self._entries[number]
            name = f"{self.store.uri}/{entry['file']}"
            if self.cache is None:
                assert self.store.local is not None
                path = self.store.local / entry["file"]
            else:
                path, evicted = self.cache.fetch(
                    self.store, entry["file"], entry["bytes"], entry["sha256"]
                )
                # A deleted file keeps its disk space while it is mapped.
                for other in [n for n in self._open if self._entries[n]["sha256"] in evicted]:
                    del self._open[other]
            opened = _Shard(path, name, entry["rows"])
            for key in ("codec", "size", "frames", "source", "unit"):
                if opened.settings[key] != self.index[key]:
                    raise ShardError(
                        f"{name} belongs to another set of shards: its {key} is "
                        f"{opened.settings[key]!r}, the index says {self.index[key]!r}"
                    )
            self._open[number] = opened
        return opened

    def _check_files(self, *, hashes: bool) -> None:
        for entry in self._entries:
            size = self.store.size(entry["file"])
            if size != entry["bytes"]:
                got = "is missing" if size is None else f"has {size} bytes, not {entry['bytes']}"
                raise ShardError(f"{self.store.uri}/{entry['file']} {got}; run the shard stage")
        if hashes and self.store.local is not None:
            with ThreadPoolExecutor() as pool:
                list(pool.map(self._check_hash, self._entries))

    def _check_hash(self, entry: dict[str, Any]) -> None:
        assert self.store.local is not None
        path = self.store.local / entry["file"]
        key = (str(path), entry["bytes"], path.stat().st_mtime_ns, entry["sha256"])
        if key in _checked:
            return
        if hash_file(path) != entry["sha256"]:
            raise ShardError(f"{path} is damaged: its sha256 is not the sealed one; rebuild it")
        _checked.add(key)


def _reopen(uri: str, cache_dir: str | None, cache_gb: float) -> ShardSet:
    return ShardSet.open(uri, cache_dir, cache_gb, verify=False)
