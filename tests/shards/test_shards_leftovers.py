"""What a lost process left half-written is gone once the shards are sealed."""

from pathlib import Path

from components.shards.sealing import seal
from components.shards.storage import open_store


def test_sealing_removes_half_shards_and_those_of_an_earlier_plan(tmp_path: Path) -> None:
    """A temporary file that stayed would change the folder's hash, and so rerun what is behind."""
    for name in (".shard-000003.arrow.496.tmp", "shard-000009.arrow", "shard-000009.json"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("not ours")
    seal(open_store(str(tmp_path)), [], {})
    left = {path.name for path in tmp_path.iterdir()}
    assert not {name for name in left if name.endswith(".tmp") or name.startswith("shard-")}
    assert "notes.txt" in left and "shards.json" in left
