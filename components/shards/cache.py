"""A local copy of shards from an object store, limited in size, shared by all processes."""

import contextlib
import os
import tempfile
from pathlib import Path

from components.shards.schema import ShardError
from components.shards.storage import Store, hash_file


class Cache:
    """A folder of shard files named by their sha256; the least recently used ones go first."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.limit = limit_bytes
        self._verified: set[str] = set()

    def fetch(self, store: Store, file: str, size: int, sha256: str) -> tuple[Path, list[str]]:
        """The local path of a shard, downloaded and checked if need be, and the sha256s evicted.

        Raises ShardError when the bytes are not those that were sealed, or when one shard alone
        is larger than the cache.
        """
        target = self.folder / f"{sha256}.arrow"
        if size > self.limit:
            raise ShardError(
                f"{file} has {size} bytes, more than the whole cache ({self.limit}); "
                "raise shard.cache_gb or lower shard.clips_per_shard"
            )
        if target.exists() and (sha256 in self._verified or hash_file(target) == sha256):
            os.utime(target)
            self._verified.add(sha256)
            return target, []
        evicted = self._make_room(size)
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
        os.close(handle)
        temporary = Path(name)
        try:
            store.download(file, temporary)
            got = hash_file(temporary)
            if got != sha256:
                raise ShardError(
                    f"{store.uri}/{file} is damaged: sha256 {got[:12]}, expected {sha256[:12]}"
                )
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        self._verified.add(sha256)
        return target, evicted

    def _make_room(self, size: int) -> list[str]:
        entries = []
        for path in self.folder.glob("*.arrow"):
            with contextlib.suppress(FileNotFoundError):  # another process may evict it first
                state = path.stat()
                entries.append((state.st_mtime_ns, state.st_size, path))
        held = sum(entry[1] for entry in entries)
        evicted = []
        for _, bytes_, path in sorted(entries):
            if held + size <= self.limit:
                break
            path.unlink(missing_ok=True)
            held -= bytes_
            self._verified.discard(path.stem)
            evicted.append(path.stem)
        return evicted
