"""Addresses as people write them: masked, resolved, refused when odd, tried within seconds."""

import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from components.address import Address, join, local_path, masked, parse_address, probe, readable
from components.errors import UserError

ROOT = Path("/project")
SECRETS = [
    "postgresql+psycopg2://mlf:s3cr/etPW@db/x",
    "postgresql://mlf:s3cr@etPW@db/x",
    "postgresql://mlf:s3cr?etPW@db/x",
    "postgresql://mlf:s3cr#etPW@db/x",
    "postgresql://mlf:12/s3cretPW@db/x",
    "mysql+pymysql://mlf:s3cr%2FetPW@db:3306/x",
    "http://mlf:s3cretPW@host:5000",
    "postgresql://mlf:s3cr etPW@db/x",
    "postgresql://mlf:s3cr'etPW@db/x",
    "postgresql://mlf:(s3cretPW)@db/x",
    "https://s3cretPW@host/x",
    "s3://KEY:s3cr/etPW@bucket/prefix?endpoint_override=h:9",
    "postgresql://db/x?user=mlf&password=s3cretPW",
    "s3://bucket/x?access_key=s3cretPW&secret_key=s3cretPW",
    "https://h/x?X-Amz-Signature=s3cretPW",
    "https://h/x?a=1;token=s3cretPW",
    "mssql+pyodbc:///?odbc_connect=Driver%3Dx%3BPWD%3Ds3cretPW",
]


@pytest.mark.parametrize("address", SECRETS)
@pytest.mark.parametrize("text", ["{}", "cannot reach {}: refused", "uri='{}'"])
def test_no_secret_survives_masking(address, text):
    shown = masked(text.format(address))
    assert "s3cr" not in shown and "etPW" not in shown and "***" in shown


@pytest.mark.parametrize("address", SECRETS)
def test_no_secret_survives_in_a_parsed_address_or_its_errors(address):
    kind = "storage" if address.startswith("s3") else "tracking"
    shown = parse_address(address, kind).masked
    assert "s3cr" not in shown and "etPW" not in shown and "***" in shown
    with pytest.raises(UserError) as refused:
        parse_address(address, "folder")
    assert "s3cr" not in str(refused.value) and "etPW" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        *("s3://bucket/a@b/c", "http://host/x?a=1", "mail me@host.org", "sqlite:////x/mlflow.db"),
        "nobody answers at http://host:5000 (refused); ask admin@host.org",
    ],
)
def test_what_is_no_secret_stays(text):
    assert masked(text) == text


@pytest.mark.parametrize(
    ("text", "kind", "scheme", "host", "port", "path"),
    [
        ("127.0.0.1:6379", "cluster", "host", "127.0.0.1", 6379, ""),
        ("[::1]:6379", "cluster", "host", "::1", 6379, ""),
        ("ray://head", "cluster", "ray", "head", 10001, ""),
        (" http://head:8265\n", "jobs", "http", "head", 8265, ""),
        ("HTTPS://h/x", "tracking", "https", "h", 443, "x"),
        ("http://h:5000/x?mail=a@b", "tracking", "http", "h", 5000, "x?mail=a@b"),
        ("postgresql+psycopg2://a:b/c@db/x", "tracking", "postgresql", "db", 5432, "x"),
        ("s3://bucket/x", "storage", "s3", "", 0, "bucket/x"),
        ("S3://k:s@b/x?endpoint_override=h:9&scheme=http", "storage", "s3", "h", 9, "b/x"),
        ("runs 1#?%", "storage", "", "", 0, "/project/runs 1#?%"),
        ("file:///a%20b", "storage", "file", "", 0, "/a b"),
        ("sqlite:///mlflow.db", "tracking", "sqlite", "", 0, "/project/mlflow.db"),
        ("sqlite:////abs/a b#.db", "tracking", "sqlite", "", 0, "/abs/a b#.db"),
        ("sqlite:////abs/a%20b.db", "tracking", "sqlite", "", 0, "/abs/a b.db"),
        ("postgresql:///x", "tracking", "postgresql", "", 5432, "x"),
        ("databricks", "tracking", "databricks", "databricks", 0, ""),
    ],
)
def test_parts(text, kind, scheme, host, port, path):
    found = parse_address(text, kind, ROOT)
    assert (found.scheme, found.host, found.port, found.path) == (scheme, host, port, path)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("http://h:port/", "tracking", "host:port"),
        ("127.0.0.1:99999", "cluster", "host:port"),
        ("http://head:8265", "cluster", "HOST:PORT"),
        ("head", "cluster", "names no port"),
        ("head:6379", "jobs", "http://HOST:8265"),
        ("http://", "jobs", "names no host"),
        ("localhost:5000", "tracking", "http://HOST:PORT"),
        ("./mlruns", "tracking", "sqlite:///mlflow.db"),
        ("ftp://h/x", "storage", "s3://bucket/prefix"),
        ("s3://bucket/x", "folder", "a folder"),
        ("s3:/bucket/x", "storage", "no folder of this machine"),
        (r"C:\data", "folder", "no folder of this machine"),
        ("file://elsewhere/x", "folder", "another host"),
        ("~nobody_here/x", "folder", "no ~nobody_here"),
        ("$NOT_SET_HERE/x", "folder", r"no \$NOT_SET_HERE"),
        ("", "folder", "empty"),
        ("  ", "storage", "empty"),
        ("sqlite://", "tracking", "sqlite:///mlflow.db"),
        ("sqlite:mlflow.db", "tracking", "sqlite:///mlflow.db"),
        ("sqlite:///:memory:", "tracking", "outlives"),
        ("sqlite:///~nobody_here/x.db", "tracking", "no ~nobody_here"),
    ],
)
def test_odd_addresses_are_refused_with_what_is_expected(text, kind, message):
    with pytest.raises(UserError, match=message):
        parse_address(text, kind, ROOT)


def test_a_sqlite_address_keeps_its_options_and_refuses_a_folder_that_it_cannot_name():
    found = parse_address("sqlite:///runs/mlflow.db?timeout=9", "tracking", ROOT)
    assert found.uri == "sqlite:////project/runs/mlflow.db?timeout=9"
    assert found.local == Path("/project/runs/mlflow.db")
    for odd in ("/what?", "/100%"):
        with pytest.raises(UserError, match="rename the folder"):
            parse_address("sqlite:///mlflow.db", "tracking", Path(odd))
    with pytest.raises(UserError, match="rename the folder"):
        parse_address("sqlite:////what%3F/x.db", "tracking")


@pytest.mark.parametrize("text", ["sqlite:////a%20b/x.db", "sqlite:////a b#/x.db"])
def test_sqlite_addresses_mean_what_they_mean_to_sqlalchemy(text):
    from sqlalchemy import make_url

    found = parse_address(text, "tracking")
    assert found.path == make_url(text).database == make_url(found.uri).database


ODD_NAMES = [
    (b"\xb9\xc7\xbc\xdc/x.avi", r"\xb9\xc7\xbc\xdc/x.avi"),  # bytes 2 and 3 are a letter in UTF-8
    (rb"\xb9", r"\\xb9"),
    ("骨架/é 1.avi".encode(), "骨架/é 1.avi"),
    (b"a\nb", r"a\x0ab"),
    ("\u202efdp.avi".encode(), r"\xe2\x80\xaefdp.avi"),  # would be shown backwards
    (b"caf\xe9/\xc3\xa9", r"caf\xe9/é"),
]


@pytest.mark.parametrize(("name", "shown"), ODD_NAMES)
def test_names_of_files_are_shown_without_a_doubt(name: bytes, shown: str):
    assert readable(os.fsdecode(name)) == shown
    shown.encode()


@pytest.mark.parametrize("name", [name for name, _ in ODD_NAMES])
def test_what_is_shown_leads_back_to_the_bytes(name: bytes):
    text = readable(os.fsdecode(name))
    pattern = re.compile(r"\\x([0-9a-f]{2})|\\(\\)")
    back = pattern.sub(lambda m: m[2] or os.fsdecode(bytes([int(m[1], 16)])), text)
    assert os.fsencode(back) == name


def test_paths_as_people_write_them(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    assert local_path("~/runs", ROOT) == Path("/home/me/runs")
    assert local_path("$SCRATCH/runs", ROOT) == Path("/scratch/me/runs")
    assert local_path(" runs\n", ROOT) == ROOT / "runs"
    assert local_path("/abs", ROOT) == Path("/abs")
    assert parse_address("sqlite:///~/m.db", "tracking", ROOT).local == Path("/home/me/m.db")


def test_a_folder_below_a_path_or_a_uri():
    assert join("/runs?1", "a") == "/runs?1/a"
    assert join("s3://b/x/?region=r", "a") == "s3://b/x/a?region=r"


def listening(answer: bytes | None) -> tuple[socket.socket, Address]:
    """A server on loopback that answers whatever it is sent, or never answers."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()

    def serve() -> None:
        line, _ = server.accept()
        line.recv(100)
        if answer is None:
            time.sleep(5)
        else:
            line.sendall(answer)
        line.close()

    threading.Thread(target=serve, daemon=True).start()
    return server, parse_address(f"127.0.0.1:{server.getsockname()[1]}", "cluster")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\0\0\0\4\0\0\0\0\0", ""),  # HTTP/2's frame of settings, as gRPC sends it
        (b"HTTP/1.0 400 Bad Request\r\n", "is no Ray"),
        (None, "no answer"),
    ],
)
def test_a_cluster_is_told_from_what_merely_listens(answer, reason):
    server, address = listening(answer)
    with server:
        said = probe(address, seconds=0.5)
    assert (reason in said) if reason else (said == "")


def test_an_address_where_nobody_listens_is_found_out():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        for text, kind in ((f"127.0.0.1:{port}", "cluster"), (f"http://127.0.0.1:{port}", "jobs")):
            assert f"nobody answers at 127.0.0.1:{port}" in probe(parse_address(text, kind))
        s3 = parse_address(f"s3://b/x?endpoint_override=127.0.0.1:{port}", "storage")
        assert "nobody answers" in probe(s3)
        closed.listen()
        assert probe(parse_address(f"http://127.0.0.1:{port}", "jobs")) == ""


def test_a_folder_must_take_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    assert probe(parse_address(str(tmp_path / "new" / "deeper"), "folder")) == ""
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]  # nothing is left behind
    assert "takes no file" in probe(parse_address(str(tmp_path / "file" / "x"), "folder"))
    assert "takes no file" in probe(parse_address("/proc/x", "storage"))


def test_a_disk_that_does_not_answer_is_given_up(monkeypatch, tmp_path):
    def stuck(_: Address) -> str:
        time.sleep(5)
        return ""

    monkeypatch.setattr("components.address._try_to_write", stuck)
    assert "no answer from the disk" in probe(parse_address(str(tmp_path), "folder"), seconds=0.1)
