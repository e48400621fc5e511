"""Where shards lie: a local folder or any URI that pyarrow.fs opens (s3, gs, hdfs, file)."""

import hashlib
import os
import uuid
from pathlib import Path
from typing import NamedTuple

from pyarrow import fs

from components.address import masked, parse_address
from components.errors import UserError

CHUNK = 1 << 20
NO_METADATA = "AWS_EC2_METADATA_DISABLED"  # the SDK's own switch
S3_ATTEMPTS = 8  # of one request, about half a minute; Arrow's own give up after six seconds


class Store(NamedTuple):
    """One folder of shards. `local` is its path when it lies on this machine, else None."""

    filesystem: fs.FileSystem
    root: str
    uri: str

    @property
    def local(self) -> Path | None:
        """The folder on this machine, or None for an object store."""
        return Path(self.root) if isinstance(self.filesystem, fs.LocalFileSystem) else None

    def path(self, name: str) -> str:
        """The path of a file in the folder; ValueError when the name would leave it."""
        if not name or "/" in name or "\\" in name or name in (".", ".."):
            raise UserError(f"{name!r} is no file name inside {self.uri}")
        return f"{self.root.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """A whole small file; FileNotFoundError when it is not there."""
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            return stream.read()

    def size(self, name: str) -> int | None:
        """Bytes of a file, None when there is none."""
        info = self.filesystem.get_file_info(self.path(name))
        return info.size if info.type == fs.FileType.File else None

    def names(self) -> list[str]:
        """The files in the folder, sorted; empty when there is no such folder."""
        infos = self.filesystem.get_file_info(fs.FileSelector(self.root, allow_not_found=True))
        return sorted(i.base_name for i in infos if i.type == fs.FileType.File)

    def write(self, name: str, data: bytes) -> None:
        """A small file, whole or not at all."""
        if self.local is not None:
            temporary = self.local / f".{name}.{uuid.uuid4().hex}.tmp"
            try:
                temporary.write_bytes(data)
                publish(temporary, self.local / name)
            finally:
                temporary.unlink(missing_ok=True)  # a full disk keeps no empty leftovers
        else:
            # An object appears when its stream closes, so readers see all of it or nothing.
            with self.filesystem.open_output_stream(self.path(name)) as stream:
                stream.write(data)

    def upload(self, source: Path, name: str) -> None:
        """Copy a finished local file into an object store."""
        with (
            source.open("rb") as file,
            self.filesystem.open_output_stream(self.path(name)) as stream,
        ):
            while block := file.read(8 * CHUNK):
                stream.write(block)

    def download(self, name: str, target: Path) -> None:
        """Copy a file out of the store."""
        with (
            self.filesystem.open_input_stream(self.path(name)) as stream,
            target.open("wb") as file,
        ):
            while block := stream.read(8 * CHUNK):
                file.write(block)

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""
        if self.size(name) is not None:
            self.filesystem.delete_file(self.path(name))

    def sha256(self, name: str) -> str:
        """The sha256 of a file's bytes."""
        digest = hashlib.sha256()
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            while block := stream.read(CHUNK):
                digest.update(block)
        return digest.hexdigest()


class PatientS3(fs.S3FileSystem):
    """S3 that is asked again for half a minute while it answers 503, which a URI cannot say.

    It travels as its URI: each node opens it anew, with the keys of its own.
    """

    def __init__(self, uri: str) -> None:
        plain, _ = fs.FileSystem.from_uri(uri)
        _, (options,) = plain.__reduce__()
        patience = fs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS)
        super().__init__(**options, retry_strategy=patience)
        self.uri = uri

    def __reduce__(self) -> tuple[type["PatientS3"], tuple[str]]:
        return PatientS3, (self.uri,)


def open_store(where: str | Path, *, create: bool = False) -> Store:
    """The folder or URI as a Store; UserError when the address cannot be understood.

    S3 of one's own is written s3://bucket/prefix?endpoint_override=host:port&scheme=http.
    """
    address = parse_address(str(where), "storage")
    if address.local is not None:
        if create:
            address.local.mkdir(parents=True, exist_ok=True)
        return Store(fs.LocalFileSystem(use_mmap=True), address.path, address.uri)
    if address.uri.startswith("s3://"):
        _ask_no_cloud_machine(address.uri)
    try:
        filesystem, root = fs.FileSystem.from_uri(address.uri)
    except (ValueError, NotImplementedError) as error:
        raise UserError(
            f"{address.masked!r} is no storage URI that Arrow can open: {masked(str(error))}"
        ) from error
    if isinstance(filesystem, fs.S3FileSystem):
        filesystem = PatientS3(address.uri)
    if create:
        filesystem.create_dir(root, recursive=True)
    return Store(filesystem, root, address.uri)


def _ask_no_cloud_machine(uri: str) -> None:
    """Keep the AWS SDK from its host's metadata service where the environment has all it needs.

    It looks there for keys and for a region whenever a client is made, and where no such service
    answers, as on machines of one's own, each client costs seconds (8 s in `tests/cluster`).
    """
    keys = "AWS_ACCESS_KEY_ID" in os.environ and "AWS_SECRET_ACCESS_KEY" in os.environ
    region = "region=" in uri or os.environ.keys() & {"AWS_REGION", "AWS_DEFAULT_REGION"}
    if keys and region:
        os.environ.setdefault(NO_METADATA, "true")


def publish(temporary: Path, target: Path) -> None:
    """Move a finished file to its name, so that a crash leaves either the whole file or none."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)


def hash_file(path: Path) -> str:
    """The sha256 of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
