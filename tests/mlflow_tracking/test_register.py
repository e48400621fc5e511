"""The registry end to end: versions that anyone can load, aliases that only the gate moves."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from mlflow import MlflowClient

from components.checkpoint import load_model, save_checkpoint
from components.datasets import ClipDataset
from components.sources import get_source
from pipelines import register

LOAD = """
import json, sys
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
table = pandas.read_json(sys.argv[2], orient="records")
for name in ("models:/amr@champion", "models:/amr/1"):
    model = mlflow.pyfunc.load_model(name)
    answers = model.predict(table).to_dict("records")
import components
print(json.dumps({"answers": answers, "code": components.__file__}, default=str))
"""


def run_register(project: Any, *words: str) -> dict[str, Any]:
    """The stage as its user runs it; `registered.json`."""
    assert register.run_stage("register", register.main, [*project.words, *words]) == 0
    found: dict[str, Any] = json.loads((project.artifacts / "registered.json").read_text())
    return found


def aliases(client: MlflowClient) -> dict[str, int]:
    return {k: int(v) for k, v in client.get_registered_model("amr").aliases.items()}


def raw_clip(project: Any) -> dict[str, str]:
    found = get_source("ntu").find(project.data).clips[0]
    video = (project.data / found.video).read_bytes()
    return {
        "video_base64": base64.b64encode(video).decode(),
        "skeleton_text": (project.data / found.skeleton).read_text(),
    }


def test_versions_and_aliases(project: Any, tmp_path: Path, evaluate_again: Any) -> None:
    first = run_register(project)
    assert (first["version"], first["alias"], first["decision"]) == (1, "champion", "promoted")
    client = MlflowClient(project.uri, project.uri)
    assert aliases(client) == {"champion": 1, "challenger": 1}

    # The same model again is no new version.
    assert run_register(project)["version"] == 1

    # Another model that fails the gate becomes challenger, and the stage does not fail.
    model, config = load_model(project.artifacts / "train" / "amr-s0" / "best")
    with torch.no_grad():
        next(iter(model.parameters())).mul_(1.5)
    save_checkpoint(project.artifacts / "train" / "amr-s0" / "best", model, config)
    evaluate_again(project.artifacts, project.config, "amr-s0")
    second = run_register(project, "register.min_clean_acc=0.999")
    assert (second["version"], second["alias"], second["champion"]) == (2, "challenger", 1)
    assert any("at least 0.999" in reason for reason in second["reasons"])
    assert aliases(client) == {"champion": 1, "challenger": 2}

    version = client.get_model_version("amr", "2")
    assert version.tags["gate"] == "failed"
    assert "at least 0.999" in version.tags["gate.reasons"]
    assert "lineage.git_commit" in version.tags
    assert version.tags["lineage.versions.torch"].startswith(torch.__version__.split("+")[0])
    assert version.description.startswith("# amr: amr")
    run = client.get_run(version.run_id)
    assert run.data.metrics["test/clean_acc"] == pytest.approx(
        json.loads((project.artifacts / "evaluation" / "amr-s0.json").read_text())["clean_acc"][
            "value"
        ]
    )

    # The other terms of another suite are noticed, with the champion's own evaluation.
    summary = json.loads((project.artifacts / "evaluation" / "amr-s0.json").read_text())
    summary["attacks"][1]["parameters"]["steps"] = 5
    (project.artifacts / "evaluation" / "amr-s0.json").write_text(json.dumps(summary))
    third = run_register(project)
    assert (third["version"], third["champion"]) == (3, 1)
    assert "another attack suite" in third["reasons"][0]

    _loads_elsewhere(project, tmp_path)


def _loads_elsewhere(project: Any, tmp_path: Path) -> None:
    """A process outside the project loads the champion with its own code and without pickle."""
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([raw_clip(project)]))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, project.uri, str(rows)],
        cwd=tmp_path,
        env=environment | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert "mlartifacts" in result["code"]
    assert result["answers"][0]["class_name"]
    logged = list((tmp_path / "mlartifacts").rglob("*"))
    assert any(path.suffix == ".safetensors" for path in logged)
    assert not [p for p in logged if p.suffix in (".pkl", ".pickle", ".pt", ".pth", ".pyc")]


@pytest.fixture
def server(project: Any, tmp_path: Path, free_port: int) -> Iterator[str]:
    """`mlflow models serve` on the champion, started as the README says."""
    run_register(project)
    words = ["models", "serve", "-m", "models:/amr@champion", "--env-manager", "local"]
    log = tmp_path / "serve.log"
    # MLflow starts `uvicorn` by name, so the environment's programs must be on the PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, "-h", "127.0.0.1", "-p", str(free_port)],
            cwd=tmp_path, env=os.environ | {"MLFLOW_TRACKING_URI": project.uri, "PATH": path},
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{free_port}"
    try:
        deadline = time.monotonic() + 300
        while not _answers(url):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        yield f"{url}/invocations"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/ping", timeout=2).ok
    except requests.RequestException:
        return False


@pytest.mark.slow
def test_http(project: Any, server: str, open_test_split: Any) -> None:
    raw = raw_clip(project)

    def post(body: Any, **kind: Any) -> requests.Response:
        return requests.post(server, timeout=120, **(kind or {"json": body}))

    answer = post({"dataframe_records": [raw, raw]})
    assert answer.status_code == 200, answer.text
    predictions = answer.json()["predictions"]
    assert len(predictions) == 2
    assert set(predictions[0]["modality_weights"]) == {"rgb", "skeleton"}

    data: ClipDataset = open_test_split(project)
    rgb, skeleton, present = (np.asarray(t).tolist() for t in data.batch([0, 1])[:3])
    rows = [
        {"rgb": r, "skeleton": s, "present": p}
        for r, s, p in zip(rgb, skeleton, present, strict=True)
    ]
    arrays = post({"dataframe_records": rows})
    assert arrays.status_code == 200, arrays.text
    inputs = post({"inputs": {"rgb": rgb, "skeleton": skeleton, "present": present}})
    assert inputs.json() == arrays.json()

    for body, word in [
        ({"dataframe_records": [{**raw, "video_base64": "@@"}]}, "base64"),
        ({"dataframe_records": [{**raw, "skeleton_text": "1 2"}]}, "skeleton"),
        ({"dataframe_records": [{"video_base64": raw["video_base64"]}]}, "skeleton_text"),
        ({"dataframe_records": [{"something": 1}]}, "needs"),
        ({"dataframe_records": []}, ""),
        ({"dataframe_records": [{**rows[0], "rgb": [[1.0]]}]}, "shape"),
        ({"dataframe_records": [{**rows[0], "rgb": "text"}]}, "rgb"),
        ({"dataframe_records": [{**rows[0], "rgb": [[1], [1, 2]]}]}, "rgb"),
        ({"inputs": "text"}, ""),
        ({"inputs": {"rgb": 1}}, ""),
        ({"inputs": {"rgb": rgb, "skeleton": skeleton[:1]}}, ""),
        ({"instances": [1, "a"]}, ""),
        ({"dataframe_split": 5}, ""),
        ({"dataframe_split": {"columns": ["rgb"], "data": [[1, 2]]}}, ""),
        ({"dataframe_records": "text"}, ""),
        ({"dataframe_records": [5]}, ""),
        ({"dataframe_records": None}, ""),
        ({"messages": [{"role": "user", "content": "hi"}]}, ""),
        ({"input": "hi"}, ""),
        ({"nothing": 1}, "exactly one"),
        ([1, 2], "list"),
    ]:
        bad = post(body)
        assert 400 <= bad.status_code < 500, (body, bad.status_code, bad.text)
        assert word in bad.text
    headers = {"Content-Type": "application/json"}
    assert post(None, data=b"\xff{", headers=headers).status_code == 400
    assert post(None, data="{}", headers={"Content-Type": "text/xml"}).status_code == 415
    assert post(None, data="{}").status_code == 415
    again = post({"dataframe_records": [raw]}).json()["predictions"][0]
    assert again["probabilities"] == pytest.approx(predictions[0]["probabilities"], abs=1e-6)
