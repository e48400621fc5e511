"""`amr doctor`: what it finds in real folders, stores and servers, and that nothing holds it up."""

import json
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import pytest

from pipelines import _checks_machine as machine
from pipelines import _checks_project as project
from pipelines import doctor
from pipelines._findings import OK, PROBLEM, WARN, Context, Finding
from tests._support.cli import ROOT, amr, write_clips

PARAMS = str(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample with planted faults."""
    return write_clips(tmp_path_factory.mktemp("sample") / "data")


def here(*overrides: str, root: Path = ROOT) -> Context:
    return Context(root, PARAMS, overrides)


def closed_port() -> int:
    """A port that nobody listens at."""
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.server_close()
    return server.server_port


def test_everything_is_looked_at(data: Path) -> None:
    done = amr("doctor", "--json", f"paths.data={data}")
    found = [Finding(**body) for body in json.loads(done.stdout)]
    assert {f.check for f in found} == {name for name, _, _ in doctor.CHECKS}
    assert done.returncode == int(any(f.state == PROBLEM for f in found)), done.stdout
    states = {f.check: f.state for f in found}
    assert {states[name] for name in ("Python", "video", "recipe")} == {OK}
    (clips,) = [f for f in found if f.check == "data"]
    # Two of the planted faults can be seen without opening a file.
    assert clips.state == WARN and clips.fix
    assert f"61 clips of ntu in {data}" in clips.found
    assert "1 no-skeleton, 1 no-video" in clips.found


def test_problems_come_with_a_fix_and_a_status(tmp_path: Path) -> None:
    words = [
        "recipe=ntu60",
        f"paths.data={tmp_path / 'none'}",
        f"ray.address=127.0.0.1:{closed_port()}",
    ]
    done = amr("doctor", *words, MLFLOW_TRACKING_URI=f"http://u:secret@127.0.0.1:{closed_port()}")
    assert done.returncode == 1 and not done.stderr
    lines = done.stdout.splitlines()
    for check, words_of_it, fix in (
        ("data", "is not there", "ln -s"),
        ("MLflow", "nobody answers", "MLFLOW_TRACKING_URI"),
        ("Ray", "nobody answers", "ray start --head"),
    ):
        (at,) = [i for i, line in enumerate(lines) if line.startswith(f"problem  {check} ")]
        assert words_of_it in lines[at] and lines[at + 1].strip().startswith("fix: ")
        assert fix in lines[at + 1]
    assert "secret" not in done.stdout and "\x1b" not in done.stdout
    assert lines[-1].endswith(" 3 problems")


def test_settings_that_cannot_be_read_are_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("recipe: sample\ntrain: {epohcs: 3}\n")
    assert doctor.main(["--json", "--params", str(params)]) == 1
    found = {f["check"]: f for f in json.loads(capsys.readouterr().out)}
    assert found["recipe"]["state"] == PROBLEM
    assert "train.epohcs" in found["recipe"]["found"] and "train.epochs" in found["recipe"]["fix"]
    assert [n for n, f in found.items() if f["state"] == PROBLEM] == ["recipe"]
    assert "not checked" in found["disk"]["found"]


def test_packages_are_held_to_the_constraints(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nrequires-python = ">=3.11"\ndependencies = ["numpy", "no-such.thing>=2"]\n'
    )
    version = metadata.version("numpy")
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("# tested\nnumpy==0.1\nPyYAML==0.2\n")
    missing, other = machine.packages(here(root=tmp_path))
    assert (missing.state, missing.found) == (PROBLEM, "not installed: no-such-thing")
    assert other.state == WARN
    # What the project itself asks for comes first.
    assert f"2 differ from constraints.txt: numpy {version} (tested: 0.1), pyyaml" in other.found
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["numpy"]\n')
    constraints.write_text(f"numpy=={version}\n")
    assert [f.state for f in machine.packages(here(root=tmp_path))] == [OK]


def test_a_python_that_is_too_old_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nrequires-python = ">=9.1"\n')
    (found,) = machine.python(here(root=tmp_path))
    assert found.state == PROBLEM and "needs >=9.1" in found.found


def test_workers_that_have_no_room_are_found() -> None:
    (fits,) = machine.torch_and_gpus(here("ray.workers=1"))
    assert fits.state == OK or "GPU" in fits.fix
    (found,) = machine.torch_and_gpus(here("ray.workers=4096"))
    assert found.state == PROBLEM and "ray.cpus_per_worker" in found.fix
    (found,) = machine.torch_and_gpus(here("ray.workers=64", "ray.gpus_per_worker=1"))
    assert found.state == PROBLEM and "ray.gpus_per_worker" in found.fix


def test_shards_need_room(data: Path, tmp_path: Path) -> None:
    words = [f"paths.data={data}", f"paths.artifacts={tmp_path}"]
    *_, small = project.data(here(*words))
    assert small.state == WARN  # the planted faults: 61 clips of 64 x 64 fit anywhere
    *_, large = project.data(here(*words, "shard.size=65536", "shard.frames=100000"))
    assert large.state == PROBLEM and "shards take up to" in large.found


def test_a_protocol_without_clips_is_a_problem(data: Path) -> None:
    words = [f"paths.data={data}", "data.protocol=custom", "data.custom.subjects=[99]"]
    (found,) = project.data(here(*words))
    assert found.state == PROBLEM and "data.protocol" in found.fix


def test_data_of_another_set_is_a_problem(data: Path, tmp_path: Path) -> None:
    (found,) = project.data(here(f"paths.data={data}", "data.source=utd_mhad"))
    assert found.state == PROBLEM and "holds no clip of utd_mhad" in found.found
    (found,) = project.data(here(f"paths.data={tmp_path / 'none'}"))
    assert found.state == WARN and "amr sample" in found.fix  # the sample is made on demand


def test_a_recipe_that_has_changed_is_told(tmp_path: Path) -> None:
    (same,) = project.recipe(here())
    assert same.state == OK
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(PARAMS, tmp_path)
    recipe = tmp_path / "recipes" / "sample.yaml"
    recipe.write_text("train: {epochs: 18}\n")
    (found,) = project.recipe(replace(here(), params=str(tmp_path / "params.yaml")))
    assert found.state == WARN and found.fix.startswith("amr recipe sample")


def test_the_state_of_git(tmp_path: Path) -> None:
    (found,) = project.git(here(root=tmp_path))
    assert found.state == WARN and "no commit" in found.found
    (tmp_path / "a.py").write_text("1\n")
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "-qm", "start"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    (found,) = project.git(here(root=tmp_path))
    assert found.state == OK
    (tmp_path / "a.py").write_text("2\n")
    (found,) = project.git(here(root=tmp_path))
    assert found.state == WARN and "1 tracked files are changed" in found.found


def test_the_state_of_dvc(tmp_path: Path) -> None:
    (found,) = project.dvc(here(root=tmp_path))
    assert (found.state, found.fix) == (PROBLEM, "dvc init")
    dvc = [Path(project.sys.executable).with_name("dvc")]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  copy:\n    cmd: cp a b\n    deps: [a]\n    outs: [b]\n"
    )
    (tmp_path / "a").write_text("1")
    (found,) = project.dvc(here(root=tmp_path))
    assert found.state == OK and "nothing has been run yet" in found.found
    subprocess.run([*dvc, "repro", "-q"], cwd=tmp_path, check=True)
    (found,) = project.dvc(here(root=tmp_path))
    assert found.state == OK and "up to date" in found.found
    (tmp_path / "a").write_text("2")
    (found,) = project.dvc(here(root=tmp_path))
    assert found.state == OK and "`dvc repro` would run copy" in found.found
    (tmp_path / "dvc.yaml").write_text("stages: [")
    (found,) = project.dvc(here(root=tmp_path))
    assert found.state == WARN and found.fix


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a sqlite store that is not there yet."""
    path = tmp_path / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    yield path


def test_the_file_of_a_store(store: Path, tmp_path: Path) -> None:
    (found,) = project.mlflow(here())
    assert found.state == OK and "made on first use" in found.found
    assert not store.exists()
    store.write_text("no database, but long enough to be taken for one" * 50)
    (found,) = project.mlflow(here())
    assert found.state == PROBLEM and "no store of MLflow's" in found.found
    store.unlink()
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{store}").create_experiment("x")
    (found,) = project.mlflow(here())
    assert found.state == OK and found.found.endswith("answers")
    from mlflow_tracking.record import FOLDER, Record

    record = Record(tmp_path / FOLDER / "train-x").create(name="n", experiment="e")
    record.add_metrics({"a": 1.0}, 0)
    _, waiting = project.mlflow(here(f"paths.artifacts={tmp_path}"))
    assert waiting.state == WARN and "1 runs are not sent" in waiting.found
    with sqlite3.connect(store) as database:
        database.execute("drop table experiments")
    found, _ = project.mlflow(here(f"paths.artifacts={tmp_path}"))
    assert found.state == PROBLEM


class _Server(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        (200, OK, "answers"),
        (404, PROBLEM, "is no MLflow server"),
        (401, PROBLEM, "asks for a login"),
    ],
)
def test_what_answers_in_a_servers_place(
    status: int, state: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = type("Handler", (_Server,), {"status": status})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    try:
        (found,) = project.mlflow(here())
    finally:
        server.shutdown()
    assert found.state == state and words in found.found


def test_a_check_that_never_ends_is_given_up() -> None:
    stop = threading.Event()

    def stuck(context: Context) -> list[Finding]:
        stop.wait(60)
        return []

    begin = time.monotonic()
    (found,) = doctor.found_in_time("disk", stuck, here(), 0.2)
    stop.set()
    assert found.state == WARN and "not known after 0.2 s" in found.found
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize(
    ("error", "words", "fix"),
    [
        (ImportError("libcudart.so.13: cannot open"), "libcudart", "pip install"),
        (OSError("no disk"), "the check broke: OSError: no disk", "report it"),
    ],
)
def test_a_check_that_breaks_is_a_finding(error: Exception, words: str, fix: str) -> None:
    def breaks(context: Context) -> list[Finding]:
        raise error

    (found,) = doctor.found_in_time("torch", breaks, here(), 10.0)
    assert found.state == PROBLEM and words in found.found and fix in found.fix


def test_a_small_shared_memory_or_none() -> None:
    (found,) = project.ray(here())
    size = shutil.disk_usage("/dev/shm").total if os.path.isdir("/dev/shm") else 1e12
    assert (found.state == WARN) == (size < project.SHARED_MEMORY)
