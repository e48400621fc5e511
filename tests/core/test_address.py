"""Addresses as people write them: masked, resolved, tried within seconds."""

import socket
import time
from pathlib import Path

import pytest

from components.address import answers, host_and_port, local_path, masked, sqlite_uri
from components.errors import UserError

ROOT = Path("/project")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql+psycopg2://mlf:s3cr/etPW@db/x",
        "postgresql://mlf:s3cr@etPW@db/x",
        "mysql+pymysql://mlf:s3cr%2FetPW@db:3306/x",
        "http://mlf:s3cretPW@host:5000",
        "https://s3cretPW@host/x",
        "s3://KEY:s3cr/etPW@bucket/prefix?endpoint_override=h:9",
        "postgresql://db/x?user=mlf&password=s3cretPW",
        "s3://bucket/x?access_key=s3cretPW&secret_key=s3cretPW",
        "https://h/x?X-Amz-Signature=s3cretPW",
        "https://h/x?a=1;token=s3cretPW",
    ],
)
@pytest.mark.parametrize("text", ["{}", "cannot reach {}: refused", "uri='{}'"])
def test_no_secret_survives_masking(address, text):
    shown = masked(text.format(address))
    assert "s3cr" not in shown and "etPW" not in shown and "***" in shown


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/a@b/c", "http://host:5000/x?a=1", "mail me@host.org", "sqlite:////x/mlflow.db"],
)
def test_what_is_no_secret_stays(text):
    assert masked(text) == text


def test_host_and_port():
    assert host_and_port("127.0.0.1:6379") == ("127.0.0.1", 6379)
    assert host_and_port("postgresql+psycopg2://a:b/c@db/x") == ("db", 5432)
    assert host_and_port("ray://head") == ("head", 10001)
    assert host_and_port("https://h/x") == ("h", 443)
    assert host_and_port("s3://bucket/x") is None
    with pytest.raises(UserError, match="host:port"):
        host_and_port("http://h:port/")


def test_an_address_where_nobody_listens_is_found_out_in_seconds():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        started = time.monotonic()
        assert not answers(f"127.0.0.1:{port}", seconds=2)
        assert time.monotonic() - started < 10
        probe.listen()
        assert answers(f"http://127.0.0.1:{port}")
    assert answers("sqlite:////x.db")


def test_paths_as_people_write_them(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("~/runs", ROOT) == Path("/home/me/runs")
    assert local_path("runs 1#?%", ROOT) == ROOT / "runs 1#?%"
    assert local_path("/abs", ROOT) == Path("/abs")
    assert local_path("file:///shared/my%20runs", ROOT) == Path("/shared/my runs")
    assert local_path("file://localhost/shared", ROOT) == Path("/shared")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a\0b", "no path"),
        ("s3://KEY:secret@bucket/x", r"s3://\*\*\*@bucket/x is an address"),
        ("http://host:1/x", "is an address"),
        ("~no-such-user/runs", "no-such-user"),
    ],
)
def test_what_is_no_local_path_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        local_path(text, ROOT)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:///mlflow.db", "sqlite:////project/mlflow.db"),
        ("sqlite:///runs/mlflow.db?timeout=9", "sqlite:////project/runs/mlflow.db?timeout=9"),
        ("sqlite:////abs/mlflow.db", "sqlite:////abs/mlflow.db"),
    ],
)
def test_a_sqlite_file_is_relative_to_the_project(uri, path):
    assert sqlite_uri(uri, ROOT) == path


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "sqlite:mlflow.db"])
def test_a_sqlite_address_without_a_file_is_refused(uri):
    with pytest.raises(UserError, match="sqlite:///mlflow.db"):
        sqlite_uri(uri, ROOT)
