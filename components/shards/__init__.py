"""Arrow shards: schema, writer, storage, reader."""

from components.shards.reader import Clip, ShardSet
from components.shards.schema import ShardError

__all__ = ["Clip", "ShardError", "ShardSet"]
