"""The one place where addresses are read: of stores, servers, clusters and folders.

People write them with `~`, relative, with passwords that hold `/` or `@`; logs, errors and MLflow
must show none of the passwords; and a host that does not answer must be found out in seconds.
"""

import re
import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.errors import UserError

PROBE_SECONDS = 3.0
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433, "ray": 10001}
# A whole address inside a longer text; quotes and brackets end it.
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*)://(?P<rest>[^\s'\"<>()]+)")
_SECRET = re.compile(
    r"(?i)([?&;](?:[\w.-]*(?:password|passwd|pwd|secret|token|credential|signature|"
    r"api_?key|access_?key)[\w.-]*|sig)=)[^&;\s'\"]+"
)


def masked(text: str) -> str:
    """`text` with user, password and secret parameters of every address in it taken out."""
    return _SECRET.sub(r"\1***", _ADDRESS.sub(_mask, text))


def _mask(found: re.Match[str]) -> str:
    scheme, rest = found["scheme"], found["rest"]
    head, at, tail = rest.rpartition("@")
    # Everything up to the last "@" is user and password, which may hold "/" and "@" themselves;
    # an "@" further down a path (s3://bucket/a@b) has no ":" and no "@" before the first "/".
    if at and (":" in head or "@" in rest.partition("/")[0]):
        return f"{scheme}://***@{tail}"
    return found[0]


def host_and_port(address: str) -> tuple[str, int] | None:
    """Where an address listens; None for files, object stores and what names no host."""
    text = address if "://" in address else f"//{address}"
    head, at, tail = text.rpartition("@")
    scheme = text.partition("://")[0].partition("+")[0] if "://" in text else ""
    parts = urlsplit(f"{scheme}://{tail}" if at else text)
    try:
        port = parts.port or PORTS.get(scheme, 0)
    except ValueError as error:
        raise UserError(f"{masked(address)}: {error}; write host:port") from error
    if scheme in ("s3", "gs", "file", "sqlite", "hdfs") or not parts.hostname or not port:
        return None
    return parts.hostname, port


def answers(address: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether somebody listens at the address; True where there is no host to ask."""
    where = host_and_port(address)
    if where is None:
        return True
    try:
        socket.create_connection(where, timeout=seconds).close()
    except OSError:
        return False
    return True


def speaks_grpc(address: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether what listens at the address answers as a gRPC server does, such as a Ray head.

    A client of gRPC tries a mute or foreign port for minutes. HTTP/2 (RFC 9113, section 3.4): both
    sides begin with a SETTINGS frame, whose fourth byte is 4.
    """
    where = host_and_port(address)
    if where is None:
        return False
    try:
        with socket.create_connection(where, timeout=seconds) as connection:
            connection.sendall(
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
            )
            head = connection.recv(9)
    except OSError:
        return False
    return len(head) >= 4 and head[3] == 4


def local_path(text: str, root: Path) -> Path:
    """A local path as people write it: `~` expanded, relative to `root`, never to the folder a
    process happens to run in. A link is kept as it is.

    UserError for what names no local folder: another scheme than `file://`, or an unknown `~user`.
    """
    if not text.strip():
        raise UserError("an empty path; name a folder")
    if "\0" in text:
        raise UserError(f"{text!r} is no path")
    scheme, mark, rest = text.partition("://")
    if mark and scheme.lower() != "file":
        raise UserError(f"{masked(text)} is an address, expected a folder of this machine")
    if mark:
        text = unquote(rest.removeprefix("localhost"))
    path = _home(text) if text.startswith("~") else Path(text)
    return path if path.is_absolute() else root / path


def _home(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # of a user whom this machine does not have
        raise UserError(f"{text}: {error}") from error


def sqlite_uri(uri: str, root: Path) -> str:
    """A sqlite address with an absolute path, as MLflow and SQLAlchemy read it.

    `sqlite:///x.db` is relative to the project, `sqlite:////x.db` is absolute.
    """
    scheme, mark, rest = uri.partition("://")
    path = rest.removeprefix("/")
    if not mark or not path or path.startswith(":memory:"):
        raise UserError(
            f"{uri} names no file that outlives a process; write sqlite:///mlflow.db (in the "
            "project's folder) or sqlite:////absolute/path/mlflow.db"
        )
    name, query, options = path.partition("?")
    return f"{scheme}:///{local_path(name, root)}{query}{options}"
