"""A job's log is followed over a broken connection, and a lost cluster is said, not waited for."""

import asyncio
import http.server
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator

import psutil
import pytest
from ray.job_submission import JobDetails, JobStatus

from components.address import parse_address
from components.files import try_lock
from pipelines import _follow, job
from pipelines._follow import follow
from pipelines._stage import StageError


class Client:
    """Ray's client as far as following needs it: each call of the log plays the next script.

    A script is what comes: text, an error, or None for a connection that says nothing any more.
    """

    def __init__(self, *scripts: list, ends: JobStatus = JobStatus.SUCCEEDED) -> None:
        self.scripts, self.ends = list(scripts), ends

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        for item in self.scripts.pop(0):
            if item is None:
                await asyncio.sleep(3600)
            if isinstance(item, Exception):
                raise item
            yield item

    def get_job_info(self, name: str) -> JobDetails:
        status = JobStatus.RUNNING if self.scripts else self.ends
        return JobDetails(type="SUBMISSION", entrypoint="", status=status)


@pytest.fixture
def server() -> Iterator[http.server.HTTPServer]:
    """A job server that answers `server.status`, once for each in `server.first` before."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server asks for
            self.send_response(made.first.pop(0) if made.first else made.status)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Nothing on the terminal."""

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.first, made.status = [], 200
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_follow, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(_follow, "BACK_SECONDS", 0.3)


def followed(client: Client, server: http.server.HTTPServer) -> tuple[JobDetails, str]:
    said: list[str] = []
    address = parse_address(f"http://127.0.0.1:{server.server_port}", "jobs")
    return follow(client, address, "j", {}, said.append), "".join(said)  # type: ignore[arg-type]


def test_a_log_is_shown_once_although_each_connection_begins_it_anew(server, quick) -> None:
    broken = RuntimeError("closed unexpectedly")
    client = Client(["one\ntw", broken], ["one\n", "two\nthree\n"])
    info, said = followed(client, server)
    assert info.status == JobStatus.SUCCEEDED
    note = said[said.index("\n(") : said.index(")\n") + 2]
    assert said.replace(note, "") == "one\ntwo\nthree\n" and "closed unexpectedly" in note


def test_a_log_that_ends_while_the_job_runs_is_taken_up_again(server, quick) -> None:
    info, said = followed(Client(["one\n"], ["one\n", "two\n"], ends=JobStatus.FAILED), server)
    assert (info.status, said) == (JobStatus.FAILED, "one\ntwo\n")


def test_a_silent_job_is_waited_for_while_its_server_answers(server, quick) -> None:
    server.first = [200, 200, 503]  # the third look finds the server away; then it is back
    _, said = followed(Client(["one\n", None], ["one\n", "two\n"]), server)
    assert said.startswith("one\n\n(the connection") and said.endswith("two\n")


def test_a_cluster_that_stays_away_is_said(server, quick) -> None:
    server.status = 503
    with pytest.raises(StageError, match="has not answered .*run the same command"):
        followed(Client(["one\n", None], []), server)


def test_a_head_that_came_back_without_the_job_is_said(server, quick) -> None:
    server.status = 404
    with pytest.raises(StageError, match="does not know job j any more.*same command again"):
        followed(Client(["one\n", RuntimeError("closed")], []), server)


# On the cluster


def test_one_job_at_a_time_in_a_workspace(tmp_path, capsys) -> None:
    held = try_lock(tmp_path / "artifacts" / ".locks" / "job.lock")
    assert held is not None
    assert job.main([str(tmp_path)]) == 2
    assert "another job is at work" in capsys.readouterr().err
    assert not (tmp_path / "pipelines").exists()


@pytest.mark.parametrize(
    ("pid", "stays"),
    [("this process", False), ("nobody", False), ("a dvc", True), ("cut off", False)],
)
def test_what_a_lost_head_left_in_dvcs_lock_is_forgotten(
    tmp_path, monkeypatch, pid: str, stays: bool
) -> None:
    """The number of a process that went with a head may be another's on the next head."""
    noted = tmp_path / ".dvc" / "tmp" / "rwlock"
    noted.parent.mkdir(parents=True)
    numbers = {"nobody": 2**22 + 1}
    holder = {"pid": numbers.get(pid, os.getpid()), "cmd": "dvc repro"}
    text = json.dumps({"write": {"/ws/out": holder}, "read": {"/ws/in": [holder]}})
    noted.write_text(text[:20] if pid == "cut off" else text)
    words = ["python", "-m", "dvc", "repro"] if pid == "a dvc" else ["sleep"]
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: words)
    job.forget_lost_dvc(tmp_path)
    assert noted.exists() == stays
    job.forget_lost_dvc(tmp_path / "new")
