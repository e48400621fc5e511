"""The main job as users run it: a Ray job on a running cluster, a second run, the registry."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import requests
import yaml

from tests._support.documented import to_run
from tests._support.project import commit, copy_project

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# What libraries say of themselves, and nobody at the screen can act on.
NOISE = (
    "worker processes have been started",  # raylet's, of idle ones
    "Configuration for experiment",  # Tune's, with 2^63 - 1 trials
    "mlflow.store.db",
    "authentication token",
)
TINY = {
    "sample": {"clips_per_class": 8},
    "train": {"epochs": 2, "stack_epochs": 1, "batch_size": 16},
    "tune": {"trials": 2, "epochs": 1, "finalists": 1},
    "evaluate": {"suite": "thin", "curve_clips": 0},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A small copy of the project with the sample laid down, as after a clone."""
    folder = copy_project(tmp_path_factory.mktemp("project"), ["amr", "late"], TINY)
    recipe = folder / "recipes" / "sample.yaml"  # small, too, for who composes it again
    values = yaml.safe_load(recipe.read_text())
    for section, changes in TINY.items():
        values[section] = {**values.get(section, {}), **changes}
    recipe.write_text(yaml.safe_dump({**values, "compare": ["amr", "late"]}))
    _run(folder, [BIN / "dvc", "init", "-q"])
    (folder / ".venv").symlink_to(sys.prefix)
    commit(folder)
    _run(folder, [sys.executable, "-m", "pipelines.sample"])
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A running Ray cluster of this machine alone, as `ray start --head` makes it."""
    port, dashboard = _free_port(), _free_port()
    log = (tmp_path_factory.mktemp("ray") / "head.log").open("w")
    head = subprocess.Popen(
        [
            BIN / "ray", "start", "--head", "--block", "--num-cpus=2", f"--port={port}",
            "--node-ip-address=127.0.0.1",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
            # By default one fixed port: where another Ray has it, no agent starts, and no job.
            f"--dashboard-agent-listen-port={_free_port()}",
            "--object-store-memory=268435456",
        ],
        env=_environment(), stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_for(address, head)
        yield address
    finally:
        head.send_signal(signal.SIGTERM)
        try:
            head.wait(60)
        finally:
            # Nothing of this cluster may outlive the test.
            try:
                os.killpg(head.pid, signal.SIGKILL)
            except ProcessLookupError:
                log.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_pipeline_runs_as_a_ray_job_and_a_second_run_does_nothing(project, cluster):
    done = _run(
        project, [sys.executable, "-m", "pipelines.submit", cluster, "--workspace", project]
    )
    assert "SUCCEEDED" in done.stdout
    for noise in NOISE:
        assert noise not in done.stdout, noise
    _check_results(project)

    again = _run(project, [BIN / "dvc", "repro"])
    assert "Data and pipelines are up to date." in again.stdout
    assert "Running stage" not in again.stdout

    _check_dvc_commands(project)
    _check_registry(project)

    # One changed parameter: exactly what depends on it is out of date, nothing before it.
    params = project / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("suite: thin", "suite: quick", 1))
    try:
        changed = _run(project, [BIN / "dvc", "status", "--json"]).stdout
    finally:
        params.write_text(before)
    assert set(json.loads(changed)) == {"evaluate@sample-amr-0", "evaluate@sample-late-0"}

    # A failing stage ends the job, and its status comes back.
    failed = subprocess.run(
        [sys.executable, "-m", "pipelines.submit", cluster, "--workspace", project, "no-stage"],
        cwd=project, capture_output=True, text=True,
    )  # fmt: skip
    assert failed.returncode == 255, failed.stdout  # what `dvc repro` ends with
    assert "FAILED" in failed.stdout and "no-stage" in failed.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_the_pages_say_can_be_typed(project):
    """Every command of README and docs that needs nothing more than this project, as it stands."""
    _lay_what_the_pages_take_for_granted(project)
    params = (project / "params.yaml").read_text()
    environment = _environment() | {"HOME": str(project / "home")}
    environment["PATH"] = f"{project}/home/bin{os.pathsep}{environment['PATH']}"
    for command in to_run():
        line = command.text.removeprefix("$ ")
        if line.startswith("amr "):  # the small model has not earned it
            client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
            client.set_registered_model_alias("amr", "champion", "1")
        if line.split()[0].endswith("mlflow"):
            _answers(project, f"{line} --port={_free_port()}")
            continue
        done = subprocess.run(
            ["bash", "-ec", line], cwd=project, env=environment,
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        said = f"{command.page}: {line}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        expected = 1 if "amr doctor" in line else 2 if command.text.startswith("$ ") else 0
        assert done.returncode == expected, said
        assert "Traceback" not in done.stdout + done.stderr, said
        if ".recipe" in line:  # whoever chose a recipe comes back to this one
            (project / "params.yaml").write_text(params)
    for name in ("answers.csv", "attacked.csv", "attack.html", "mine.html", "out.png", "amr.pt2"):
        assert (project / name).stat().st_size > 100, name


def _lay_what_the_pages_take_for_granted(project: Path) -> None:
    """Two files, a folder of clips, and the console script, which is installed elsewhere."""
    (project / "home" / "bin").mkdir(parents=True)
    script = project / "home" / "bin" / "amr"
    script.write_text('#!/bin/sh\nexec python -m pipelines "$@"\n')
    script.chmod(0o755)
    (project / "clips").mkdir()
    for action in (1, 7):
        name = f"S001C001P002R001A{action:03d}"
        for part in (f"nturgb+d_rgb/{name}_rgb.avi", f"nturgb+d_skeletons/{name}.skeleton"):
            shutil.copy(project / "data" / "sample" / part, project / "clips")
    shutil.copy(project / "clips" / "S001C001P002R001A001_rgb.avi", project / "clip_rgb.avi")
    shutil.copy(project / "clips" / "S001C001P002R001A001.skeleton", project / "clip.skeleton")


def _answers(project: Path, line: str) -> None:
    """A server that serves until it is ended."""
    server = subprocess.Popen(
        ["bash", "-ec", f"exec {line}"], cwd=project, env=_environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(f"http://127.0.0.1:{line.rpartition('=')[2]}", server)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def test_submit_without_a_cluster_says_so():
    address = f"http://127.0.0.1:{_free_port()}"
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.submit", address],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no Ray cluster answers" in done.stderr and "ray start --head" in done.stderr
    assert "Traceback" not in done.stderr


def _check_results(project: Path) -> None:
    for model in ("amr", "late"):
        body = json.loads((project / f"artifacts/sample/evaluation/{model}-s0.json").read_text())
        assert (body["recipe"], body["variant"], body["seed"]) == ("sample", model, 0)
        clean = body["clean_acc"]
        assert 0 <= clean["low"] <= clean["value"] <= clean["high"] <= 1
        assert clean["n"] == body["clips"] > 0
        for attack in ("fgsm", "pgd20"):
            assert set(body["robust_acc"][attack]) == {"rgb", "skeleton", "both"}
        for cell in ("rgb", "skeleton", "both"):
            worst = body["worst"][cell]["value"]
            assert worst <= clean["value"]
            assert worst <= min(accs[cell]["value"] for accs in body["robust_acc"].values())
    assert (project / "artifacts/sample/report/index.html").stat().st_size > 10_000


def _check_dvc_commands(project: Path) -> None:
    shown = _run(project, [BIN / "dvc", "metrics", "show", "--json"]).stdout
    assert "artifacts/sample/evaluation/amr-s0.json" in shown
    plots = _run(project, [BIN / "dvc", "plots", "show", "--json"]).stdout
    assert "history.csv" in plots


def _check_registry(project: Path) -> None:
    code = (
        "import mlflow, numpy as np\n"
        "model = mlflow.pyfunc.load_model('models:/amr/1')\n"
        "assert model.metadata.signature is not None\n"
        "example = model.input_example\n"
        "print('LOADED', type(model.predict(example)).__name__)\n"
    )
    environment = _environment() | {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.parent, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert "LOADED" in done.stdout, done.stdout + done.stderr


def _run(folder: Path, command: list) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder, env=_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done


def _environment() -> dict[str, str]:
    """This interpreter's commands first, and the tracking store that a user has by default."""
    # MLflow keeps the stores of earlier tests of this process in the environment.
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    return clean | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(address: str, head: subprocess.Popen) -> None:
    for _ in range(240):
        assert head.poll() is None, "ray start --head ended"
        try:
            # With Ray's token authentication the answer is 401: it answers, that is enough.
            requests.get(f"{address}/api/version", timeout=2)
            return
        except (requests.ConnectionError, requests.Timeout):
            time.sleep(0.5)
    raise AssertionError("the dashboard never answered")
