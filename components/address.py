"""The one place where addresses are read: of stores, servers, clusters, workspaces and folders.

People write them with `~`, relative, with passwords that hold `/` or `@`; logs, errors and MLflow
must show none of the passwords; a slip must not become a folder named `~` or `s3:`; and a host that
does not answer must be found out in seconds, before anything long begins.
"""

import os
import re
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.errors import UserError
from components.timeouts import OutOfTime, in_time

PROBE_SECONDS = 3.0
ROOT = Path(__file__).resolve().parent.parent  # what relative paths are relative to
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https")
OBJECTS = ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")
# What each kind of address may start with; "" is a path, "host" is HOST:PORT.
KINDS = {
    "folder": ("", "file"),
    "storage": ("", "file", *OBJECTS),
    "tracking": (*DATABASES, *SERVERS, "databricks"),
    "cluster": ("host", "ray"),
    "jobs": SERVERS,
}
EXAMPLES = {
    "folder": "a folder, such as /shared/runs or ~/runs",
    "storage": "a folder that every node sees, or s3://bucket/prefix",
    "tracking": "sqlite:///mlflow.db, or a server, http://HOST:PORT",
    "cluster": "HOST:PORT or ray://HOST:PORT",
    "jobs": "the dashboard of a cluster, http://HOST:8265",
}
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433, "ray": 10001}
_URI = re.compile(r"([A-Za-z][\w+.-]*)://(.*)", re.DOTALL)
# A whole address inside a longer text; quotes and brackets end it.
_INSIDE_TEXT = re.compile(r"([A-Za-z][\w+.-]*)://([^\s'\"<>()]+)")
# A password that holds what would end an address; behind a host stands a port or nothing.
_ODD_PASSWORD = re.compile(
    r"([A-Za-z][\w+.-]*)://[^\s/@:'\"<>()]*:(?!\d{1,5}\b)[^\n@]*[\s'\"<>()][^\n@]*@"
)
_SECRET = re.compile(
    r"(?i)([?&;](?:[\w.-]*(?:password|passwd|pwd|secret|token|credential|signature|"
    r"api_?key|access_?key)[\w.-]*|sig|odbc_connect)=)[^&;\s'\"]+"
)


@dataclass(frozen=True)
class Address:
    """An address by its parts.

    scheme: without a driver ("postgresql" for postgresql+psycopg2), "" for a path on this machine
    host, port: "" and 0 where nobody has to answer
    path: of a folder or a database file, absolute; otherwise what follows the host
    uri: the address in the form that libraries take, with absolute paths; holds the password
    """

    scheme: str
    host: str
    port: int
    path: str
    uri: str

    @property
    def masked(self) -> str:
        """For logs and errors: user, password and secret parameters taken out."""
        found = _URI.fullmatch(self.uri)
        text = _without_user(found[1], found[2]) if found else self.uri
        return _SECRET.sub(r"\1***", text)

    @property
    def local(self) -> Path | None:
        """The folder or database file on this machine; None for anything else."""
        return Path(self.path) if self.scheme in ("", "file", "sqlite") else None


def parse_address(text: str, kind: str, root: Path = ROOT) -> Address:
    """`text` as an address of that kind (a key of KINDS); UserError with what is expected.

    Paths are relative to `root`, never to the folder that a process happens to run in.
    """
    text = text.strip()
    found = _URI.fullmatch(text)
    scheme = found[1].lower().partition("+")[0] if found else ""
    if not found and kind in ("tracking", "cluster", "jobs"):
        scheme = text.partition(":")[0].lower() if kind != "cluster" else "host"
    if scheme not in KINDS[kind] or not text:
        raise UserError(f"{masked(text) or 'an empty address'} is not {EXAMPLES[kind]}")
    if scheme in ("", "file"):
        path = local_path(text, root)
        return Address(scheme, "", 0, str(path), str(path))
    if scheme == "sqlite":
        return _sqlite(text, root)
    _, rest = _split_user(found[2] if found else text)
    host, port = _host(rest, scheme, text)
    if not host and scheme in (*SERVERS, "ray", "host"):
        raise UserError(f"{masked(text)} names no host; write {EXAMPLES[kind]}")
    if scheme == "host" and not port:
        raise UserError(f"{masked(text)} names no port; write {EXAMPLES[kind]}")
    uri = f"{found[1].lower()}://{found[2]}" if found else text
    if scheme in OBJECTS:
        endpoint = re.search(r"[?&]endpoint_override=([^&]+)", rest)
        host, port = _host(unquote(endpoint[1]), "s3", text) if endpoint else ("", 0)
        return Address(scheme, host, port, rest.partition("?")[0], uri)
    return Address(scheme, host, port, rest.partition("/")[2], uri)


def local_path(text: str, root: Path = ROOT) -> Path:
    """A path as people write it: `~` and a leading variable expanded, relative to `root`.

    A link is kept as it is. UserError for what would make a folder of an odd name.
    """
    text = text.strip()
    if text.startswith("file:"):
        parts = urlsplit(text.replace("?", "%3F").replace("#", "%23"))
        if parts.netloc not in ("", "localhost"):
            raise UserError(f"{text} lies on another host; write file:///path or the path alone")
        text = unquote(parts.path)
    if not text or "\0" in text:
        raise UserError(f"{text!r} is no path; name a folder" if text else "an empty path")
    if re.match(r"[A-Za-z][\w+.-]*:[/\\]", text):
        raise UserError(f"{masked(text)} is no folder of this machine; name one, or link it there")
    path = os.path.expanduser(os.path.expandvars(text) if text.startswith("$") else text)
    if path.startswith(("~", "$")):
        raise UserError(f"{text}: there is no {text.partition('/')[0]} here; write the whole path")
    return Path(path) if os.path.isabs(path) else root / path


def readable(path: str) -> str:
    """A path of files as it is shown: no two paths look alike, whatever bytes they are made of.

    Printable names stay. In a name that is no UTF-8 each byte beyond ASCII is written `\\xNN`, in
    any other the bytes of what cannot be printed; a backslash is doubled.
    """
    return "/".join(_readable_name(name) for name in path.split("/"))


def is_text(path: str) -> bool:
    """Whether a path is UTF-8, so that it can be written to a file or sent."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def join(base: str, name: str) -> str:
    """The folder `name` below `base`, a path or a storage URI with parameters."""
    uri, mark, query = base.partition("?") if "://" in base else (base, "", "")
    return f"{uri.rstrip('/')}/{name}{mark}{query}"


def masked(text: str) -> str:
    """`text` with user, password and secret parameters of every address in it taken out."""
    hidden = _ODD_PASSWORD.sub(r"\1://***@", text)
    hidden = _INSIDE_TEXT.sub(lambda found: _without_user(found[1], found[2]), hidden)
    return _SECRET.sub(r"\1***", hidden)


def probe(address: Address, seconds: float = PROBE_SECONDS) -> str:
    """Why the address cannot be used, found out in about `seconds`; "" when nothing speaks against.

    A host must take a connection; a folder on this machine, or the nearest one above it that
    exists, must take a file. Object stores without an endpoint of their own are not asked.
    """
    if address.host and address.port:
        return _ask_host(address, seconds)
    if address.local is not None:
        try:
            return in_time(seconds, lambda: _try_to_write(address))
        except OutOfTime:
            return f"no answer from the disk in {seconds:g} s"
    return ""


def _ask_host(address: Address, seconds: float) -> str:
    where = f"{address.host}:{address.port}"
    try:
        with socket.create_connection((address.host, address.port), timeout=seconds) as line:
            if address.scheme not in ("host", "ray") or os.environ.get("RAY_USE_TLS") == "1":
                return ""
            # Ray speaks gRPC, so HTTP/2: a greeting is answered by a frame of settings (type 4).
            # Joining anything else, such as the dashboard's port, waits for minutes.
            line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            return "" if line.recv(9)[3:4] == b"\4" else f"what listens at {where} is no Ray"
    except TimeoutError:
        return f"no answer from {where} in {seconds:g} s"
    except OSError as error:
        return f"nobody answers at {where} ({str(error.strerror or error).lower()})"


def _try_to_write(address: Address) -> str:
    assert address.local is not None
    folder = address.local.parent if address.scheme == "sqlite" else address.local
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{folder} takes no file ({str(error.strerror or error).lower()})"


def _sqlite(text: str, root: Path) -> Address:
    # As SQLAlchemy (2.1) and MLflow read it: sqlite:///x.db is relative, sqlite:////x.db is
    # absolute, and %20 is a blank.
    head, _, rest = text.partition("://")
    name, mark, options = rest.removeprefix("/").partition("?")
    if not name or name.startswith(":memory:") or not rest.startswith("/"):
        raise UserError(
            f"{text} names no file that outlives a process; write sqlite:///mlflow.db (in the "
            "project's folder) or sqlite:////absolute/path/mlflow.db"
        )
    path = str(local_path(unquote(name), root))
    if odd := {"?", "%"} & set(path):
        # MLflow makes the folder of an address as it stands, before decoding it: no way out.
        raise UserError(
            f"{path}: MLflow takes no {min(odd)!r} in the path of a database file; rename the "
            "folder, or set tracking.uri (or MLFLOW_TRACKING_URI) to a file elsewhere"
        )
    return Address("sqlite", "", 0, path, f"{head.lower()}:///{path}{mark}{options}")


def _split_user(rest: str) -> tuple[str, str]:
    """(user and password, host and what follows) of an address without its scheme.

    A password may hold "/", "?", "#" and "@" itself, so it ends at the last "@". An "@" behind a
    host and its port (http://host:5000/x?mail=a@b) ends none.
    """
    head, at, tail = rest.rpartition("@")
    front = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if not at or re.fullmatch(r"[\w.-]*(:\d{1,5})?|\[[\da-fA-F:]+\](:\d{1,5})?", front):
        return "", rest
    return head, tail


def _without_user(scheme: str, rest: str) -> str:
    # Rather too much than too little: "user:123/4@host" may be a password that begins as a port.
    head, at, tail = rest.rpartition("@")
    hidden = at and (":" in head or "@" in rest.partition("/")[0])
    return f"{scheme}://***@{tail}" if hidden else f"{scheme}://{rest}"


def _host(rest: str, scheme: str, text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{rest}")
        return parts.hostname or "", parts.port or PORTS.get(scheme, 0)
    except ValueError as error:
        raise UserError(f"{masked(text)}: {error}; write host:port") from error


def _readable_name(name: str) -> str:
    utf8, shown = is_text(name), []
    for c in name:
        if c == "\\":
            shown.append("\\\\")
        elif c.isprintable() and (utf8 or c.isascii()):
            # Of a name in another encoding some bytes may form letters, which would mislead.
            shown.append(c)
        else:
            shown += [f"\\x{byte:02x}" for byte in os.fsencode(c)]
    return "".join(shown)
