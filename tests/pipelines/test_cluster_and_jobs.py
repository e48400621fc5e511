"""Which Ray a stage joins, what travels to a cluster, and what a job may replace there."""

import http.server
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray._private.runtime_env import packaging
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from components.config import load_config
from components.config.train import RaySection
from components.errors import UserError
from mlflow_tracking.lineage import COMMIT
from pipelines import _cluster, _network, _package, job, submit
from pipelines._cluster import cluster, cluster_address
from pipelines._stage import ROOT, Stage, StageError, check_addresses, only_one, run_stage


@pytest.fixture(autouse=True)
def no_cluster_of_the_shell(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


@pytest.fixture
def web():
    """A web server that is no Ray: `web.answer = (status, body)`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802 - the name that http.server asks for
            status, body = server.answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answer = (200, b"hello")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


# Which Ray


@pytest.mark.parametrize("given", ["setting", "environment"])
def test_a_cluster_that_is_not_there_is_named_in_seconds(closed_port, web, monkeypatch, given):
    for port, reason in ((closed_port, "nobody answers"), (web.server_port, "is no Ray")):
        address = f"127.0.0.1:{port}"
        section = RaySection()
        if given == "setting":
            section = RaySection(address=address)
        else:
            monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(StageError, match=f"{reason}.*ray start --head"), cluster(section):
            pytest.fail("joined a cluster that is not there")


@pytest.fixture
def greeting():
    """A port of 127.0.0.1 that greets as Ray does, once."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def greet():
            line, _ = listener.accept()
            with line:
                line.recv(100)
                line.sendall(b"\0\0\0\4\0\0\0\0\0")

        threading.Thread(target=greet, daemon=True).start()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_cluster_behind_a_tunnel_is_not_waited_for(monkeypatch, greeting, host):
    """Ray asks this machine's own address for a loopback one, and would wait there for minutes."""
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.2")
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("would wait for minutes"))
    section = RaySection(address=f"{host}:{greeting}")
    with pytest.raises(StageError, match=f"Ray takes {host} .* nobody answers at 127.0.0.2"):
        _cluster._join(cluster_address(section))


@pytest.mark.parametrize("error", [ConnectionError, AuthenticationError])
def test_a_cluster_that_asks_for_another_token_is_not_called_absent(monkeypatch, greeting, error):
    def refuse(**_):
        raise error("Failed to connect to Ray cluster")

    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(StageError, match="does not take this machine in.*RAY_AUTH_TOKEN_PATH"):
        _cluster._join(cluster_address(RaySection(address=f"127.0.0.1:{greeting}")))


@pytest.mark.parametrize(
    ("setting", "variable", "joined"),
    [
        ("", "", None),
        ("local", "10.0.0.1:6379", None),
        ("", "http://head:8265", None),
        ("auto", "", "auto"),
        (" 10.0.0.1:6379 ", "10.0.0.2:6379", "10.0.0.1:6379"),
        ("", "10.0.0.2:6379", "10.0.0.2:6379"),
    ],
)
def test_the_setting_goes_before_the_environment(monkeypatch, setting, variable, joined):
    monkeypatch.setenv("RAY_ADDRESS", variable)
    address = cluster_address(RaySection(address=setting))
    assert getattr(address, "uri", address) == joined


def test_the_dashboards_address_is_no_clusters(capsys):
    words = ["ray.address=http://head:8265", "index.check=full"]
    with pytest.raises(UserError, match="HOST:PORT"):
        cluster_address(load_config(ROOT / "params.yaml", words).ray)


def test_a_ray_of_this_machine_has_the_cpus_of_its_container(monkeypatch):
    asked = {}
    monkeypatch.setattr(_cluster, "usable_cpus", lambda: 1)
    monkeypatch.setattr(ray, "init", lambda **settings: asked.update(settings))
    _cluster._start_local()
    assert asked["num_cpus"] == 1


@pytest.mark.slow
def test_a_home_that_never_saw_ray_joins_a_cluster(tmp_path):
    """`ray start` makes the token that joining asks for; also after a stage ran without one."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    ray_folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # a socket's path must be short
    environment |= {"HOME": str(tmp_path), "RAY_TMPDIR": str(ray_folder)}
    environment |= {"PATH": "/usr/bin:/bin"}  # nothing activated
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    join = (
        "from components.config.train import RaySection\n"
        "from pipelines._cluster import cluster\n"
        "from pipelines._tasks import parallel\n"
        "with cluster(RaySection(address={!r})) as c:\n"
        "    print('RESULT', list(parallel(c, lambda x: str(x), [7])))\n"
    )

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "RESULT ['7']" in run(join.format(""))
    ray_command = [str(Path(sys.executable).parent / "ray")]
    start = ["start", "--head", f"--port={port}", "--num-cpus=1", "--include-dashboard=false"]
    start += ["--object-store-memory=100000000"]
    subprocess.run([*ray_command, *start], env=environment, check=True, capture_output=True)
    try:
        assert "RESULT ['7']" in run(join.format(f"127.0.0.1:{port}"))
    finally:
        # `ray stop` would end every Ray of this user; these are the processes of this one.
        _end_processes_below(ray_folder)
        shutil.rmtree(ray_folder)


def _end_processes_below(folder: Path) -> None:
    import psutil

    mine = [p for p in psutil.process_iter(["cmdline"]) if str(folder) in str(p.info["cmdline"])]
    for process in mine:
        process.kill()
    psutil.wait_procs(mine, timeout=30)


# What travels


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t.invalid"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path):
    """A repository with what a project collects beside its code."""
    raw, root = tmp_path / "raw", tmp_path / "project"
    raw.mkdir()
    (raw / "S001C001P001R001A001.skeleton").write_text("licensed")
    (root / "code").mkdir(parents=True)
    (root / "code" / "a b.py").write_text("print(1)\n")
    (root / "folder").mkdir()
    (root / "folder" / "in_git.py").write_text("")
    (root / ".gitignore").write_text("/artifacts*\n")
    (root / "tracked_link").symlink_to(raw)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    (root / "artifacts-eps2").mkdir()
    (root / "artifacts-eps2" / "big").write_bytes(bytes(10_000_000))
    (root / "results").mkdir()
    (root / "results" / "big").write_bytes(bytes(10_000_000))
    (root / "raw_link").symlink_to(raw)
    (root / "new.py").write_text("")
    return root


def test_only_what_git_tracks_travels_as_it_lies_there(project):
    (project / "code" / "a b.py").write_text("print(2)\n")
    shutil.rmtree(project / "folder")
    (project / "folder").symlink_to(project.parent / "raw")
    with _package.package(project) as sent:
        there = {str(p.relative_to(sent.folder)) for p in sent.folder.rglob("*") if p.is_file()}
        assert there == {".gitignore", "code/a b.py"}
        assert (sent.folder / "code" / "a b.py").read_text() == "print(2)\n"
        assert not [p for p in sent.folder.rglob("*") if p.is_symlink()]
        assert (sent.files, sent.untracked) == (2, ("new.py",))
        assert sent.bytes < 1000 and sent.commit.endswith("-dirty")
        assert "2 files that git tracks, 0.0 MB" in sent.describe()[0]
        assert "new.py" in sent.describe()[1] and "git add" in sent.describe()[1]
    assert not sent.folder.exists()


def test_code_in_a_workspace_inside_the_project_is_not_named_as_left_behind(project):
    workspace = project / "w [s]"
    workspace.mkdir()
    (workspace / "job.py").write_text("")
    with _package.package(project) as sent:
        assert sent.untracked == ("new.py", "w [s]/job.py")
    for aside, left in ((workspace, ("new.py",)), (project, sent.untracked)):
        with _package.package(project, aside) as sent:
            assert sent.untracked == left


def test_a_tracked_file_that_gitignore_matches_travels_too(project, monkeypatch, tmp_path):
    """Ray's client heeds .gitignore, and would leave it out without a word."""
    (project / "artifacts-eps2" / "best.yaml").write_text("a: 1\n")
    git(project, "add", "-f", "artifacts-eps2/best.yaml")
    sent = tmp_path / "sent"
    monkeypatch.setattr(JobSubmissionClient, "__init__", lambda *_: None)
    monkeypatch.setattr(JobSubmissionClient, "_package_exists", lambda *_: False)
    monkeypatch.setattr(JobSubmissionClient, "_raise_error", lambda *_: None)

    def take(_, method, where, *, data):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            archive.extractall(sent)
        return SimpleNamespace(status_code=200)

    monkeypatch.setattr(JobSubmissionClient, "_do_request", take)
    with _package.package(project) as made:
        client = JobSubmissionClient("http://127.0.0.1:1")
        client._upload_working_dir_if_needed({"working_dir": str(made.folder)})
    assert (sent / "artifacts-eps2" / "best.yaml").is_file()
    assert not (sent / "artifacts-eps2" / "big").exists()
    assert _package.WHOLE not in os.environ


def test_a_name_in_another_encoding_stays_and_is_named(project, tmp_path):
    """Ray's archive of the project takes UTF-8 alone: one such file would end every submission."""
    for name in (b"caf\xe9.txt", "caf\u00e9.txt".encode()):
        Path(os.fsdecode(os.fsencode(project) + b"/" + name)).write_text("x")
    git(project, "add", "--", "*.txt")
    with _package.package(project) as sent:
        assert (sent.folder / "caf\u00e9.txt").is_file()
        assert any(
            "1 files have names" in line and r"caf\xe9.txt" in line for line in sent.describe()
        )
        packaging.create_package(str(sent.folder), tmp_path / "sent.zip", include_gitignore=True)


def test_the_commit_of_a_clean_tree_and_of_none(project):
    (project / "new.py").unlink()
    with _package.package(project) as sent:
        assert len(sent.commit) == 40
    shutil.rmtree(project / ".git")
    with pytest.raises(UserError, match="no git repository"), _package.package(project):
        pytest.fail("sent a folder of unknown files")
    git(project.parent, "init", "-q")  # unpacked inside of another repository
    with pytest.raises(UserError, match="git tracks nothing"), _package.package(project):
        pytest.fail("sent nothing at all")


@pytest.mark.parametrize(
    ("uri", "travels", "said"),
    [
        ("", False, ""),
        ("http://mlflow:5000", True, ""),
        ("http://127.0.0.1:5000", True, "the server must be there too"),
        ("http://me:pw@mlflow:5000", False, "holds a password"),
        ("postgresql://me:pw@db/x", False, "holds a password"),
        ("sqlite:///mlflow.db", False, "a file of this machine"),
    ],
)
def test_the_tracking_server_travels_unless_its_address_is_secret(monkeypatch, uri, travels, said):
    monkeypatch.setenv(submit.TRACKING, uri)
    sent = submit.environment("abc")
    assert sent[COMMIT] == "abc" and (submit.TRACKING in sent) == travels
    lines = submit.warnings_of("abc")
    assert ([said in line for line in lines] == [True]) if said else not lines
    assert "pw" not in " ".join(lines)
    assert "no git commit" in submit.warnings_of("")[0]


# The job server


def test_what_is_no_job_server_is_named(web, closed_port, capsys):
    secret = f"http://me:s3cret@127.0.0.1:{closed_port}"
    for address, message in (
        (f"http://127.0.0.1:{web.server_port}", "is no Ray dashboard"),
        (secret, "no Ray cluster answers"),
        ("127.0.0.1:8265", "http://HOST:8265"),
    ):
        assert submit.main([address]) == 2
        said = capsys.readouterr().err
        assert message in said and "s3cret" not in said and "Traceback" not in said
    web.answer = (401, b"")
    assert submit.main([f"http://127.0.0.1:{web.server_port}"]) == 2
    assert "RAY_AUTH_TOKEN_PATH" in capsys.readouterr().err


def test_a_job_server_that_never_answers_is_given_up(monkeypatch, capsys):
    monkeypatch.setattr(submit, "ANSWER_SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert submit.main([f"http://127.0.0.1:{silent.getsockname()[1]}"]) == 2
    assert "no Ray cluster answers" in capsys.readouterr().err


def test_a_workspace_is_meant_from_the_shells_folder(monkeypatch, tmp_path, web):
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(submit, "_check_server", lambda _: None)
    monkeypatch.setattr(submit, "JobSubmissionClient", lambda *_, **__: None)
    monkeypatch.setattr(submit, "_status", lambda *_: 0)
    monkeypatch.setattr(submit, "follow", lambda *_: None)
    monkeypatch.setattr(submit, "_submit", lambda _, entrypoint, *__: asked.append(entrypoint))
    assert submit.main(["http://127.0.0.1:1", "--workspace", "./w s"]) == 0
    assert f"'{tmp_path}/w s'" in asked[0]


@pytest.mark.parametrize("workspace", ["/shared/my runs", "/shared/a#b", "~/ws", "a;b&c", ""])
def test_make_hands_a_workspace_over_as_it_is_written(tmp_path, workspace):
    """Unquoted, what follows a blank was taken for a stage, and what follows a # was dropped."""
    (tmp_path / "python").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "python").chmod(0o755)
    words = [f"BIN={tmp_path}", f"WORKSPACE={workspace}", "STAGES=index shard"]
    words += ["RAY_ADDRESS=http://h:1/?a=b&c", "-o.venv/.installed"]
    command = ["make", "-s", "submit", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    sent = ["http://h:1/?a=b&c", "--workspace", workspace, "index", "shard"]
    assert done.stdout.splitlines() == ["-m", "pipelines.submit", *sent], done.stderr


@pytest.mark.parametrize("below_a_raylet", [True, False])
def test_rays_own_interpreter_runs_the_job(tmp_path, below_a_raylet):
    """The command line of the raylet, an ancestor, names it; without one the PATH's `python`."""
    command = submit.in_rays_python(["-c", "import sys; print(sys.executable)"])
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho python of the path\n")
    fake.chmod(0o755)
    # Between the raylet and the job's shell is the process that Ray calls the job's supervisor.
    nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    supervisor = f"import subprocess; subprocess.run({command!r}, shell=True)"
    words = [sys.executable, "-c", nested, supervisor]
    if below_a_raylet:
        words.append(f"--python_worker_command={sys.executable} setup_worker.py")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    expected = sys.executable if below_a_raylet else "python of the path"
    assert done.stdout.strip() == expected, done.stderr


# The cluster's side


def test_a_job_refuses_a_workspace_that_it_would_spoil(tmp_path, capsys):
    assert job.main(["./ws"]) == 2
    assert "absolute" in capsys.readouterr().err
    (tmp_path / "tests").mkdir()
    assert job.main([str(tmp_path)]) == 2
    assert "something else" in capsys.readouterr().err
    assert (tmp_path / "tests").is_dir()


def test_a_workspace_may_hold_data_or_an_earlier_jobs_code(tmp_path):
    (tmp_path / "data").mkdir()
    assert job.is_ours(tmp_path)
    (tmp_path / "pipelines").mkdir()
    assert not job.is_ours(tmp_path)
    (tmp_path / "dvc.yaml").write_text("")
    assert job.is_ours(tmp_path)


# Between nodes

Net = namedtuple("Net", "family address")


def test_workers_take_the_interface_that_carries_ray(monkeypatch):
    interfaces = {
        "lo": [Net(socket.AF_INET, "127.0.0.1")],
        "eth0": [Net(socket.AF_INET, "10.0.0.5"), Net(socket.AF_INET6, "fe80::5%eth0")],
        "bridge": [Net(socket.AF_INET, "10.0.0.9")],
        "twin": [Net(socket.AF_INET, "10.0.0.9")],
    }
    assert _network.interface_of("10.0.0.5", interfaces) == "eth0"
    assert _network.interface_of("fe80::5", interfaces) == "eth0"
    assert _network.interface_of("10.0.0.9", interfaces) is None  # either would be a guess
    assert _network.interface_of("10.9.9.9", interfaces) is None


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (["10.0.0.5", "10.0.0.6"], "eth0"),
        (["10.0.0.5", "10.0.0.5"], None),
        (["127.0.0.1", "127.0.0.1"], "lo"),
    ],
)
def test_the_interface_is_set_before_workers_meet_across_nodes_or_on_loopback(
    monkeypatch, nodes, expected
):
    for variable in _network.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: nodes[0])
    interfaces = {
        "eth0": [Net(socket.AF_INET, "10.0.0.5")],
        "lo": [Net(socket.AF_INET, "127.0.0.1")],
    }
    monkeypatch.setattr(_network.psutil, "net_if_addrs", lambda: interfaces)
    seen = []

    class Workers:
        def execute(self, function):
            return nodes if function is ray.util.get_node_ip_address else function()

    backend = _network.NodeTorchConfig(backend="gloo").backend_cls
    ray_backend = backend.__mro__[1]
    monkeypatch.setattr(
        ray_backend, "on_start", lambda *_: seen.append(os.environ.get("GLOO_SOCKET_IFNAME"))
    )
    try:
        backend().on_start(Workers(), _network.NodeTorchConfig(backend="gloo"))
    finally:
        for variable in _network.VARIABLES:
            os.environ.pop(variable, None)
    assert seen == [expected]


# Before a stage begins


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("index", ["paths.artifacts=/proc/x"], "takes no file"),
        ("index", ["paths.artifacts=s3://b/x"], "a folder"),
        ("shard", ["shard.uri=ftp://h/x"], "s3://bucket/prefix"),
        ("train", ["ray.storage=~nobody_here/runs"], "no ~nobody_here"),
        ("train", ["ray.storage=s3:/bucket"], "no folder of this machine"),
        ("tune", ["ray.storage=s3://b/x?endpoint_override=127.0.0.1:1"], "nobody answers"),
    ],
)
def test_an_unusable_address_ends_a_stage_before_it_begins(tmp_path, name, words, message, capsys):
    defaults = [f"paths.artifacts={tmp_path}", f"tracking.uri=sqlite:///{tmp_path}/m.db"]
    assert run_stage(name, lambda stage: pytest.fail("began"), [*defaults, *words]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


def test_the_same_stage_runs_once_at_a_time(tmp_path):
    def stage(name: str, *words: str) -> Stage:
        config = load_config(ROOT / "params.yaml", [f"paths.artifacts={tmp_path}", *words])
        return Stage(name, config)

    with only_one(stage("train")):
        with pytest.raises(StageError, match="another process"), only_one(stage("train")):
            pytest.fail("two at once")
        with only_one(stage("train", "seed=1")), only_one(stage("index")):
            pass  # other files
    with only_one(stage("train")):
        pass
    check_addresses(stage("report"))
