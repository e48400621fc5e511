"""Lineage: what made a number is recorded, and a change of any of it shows."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.config import Config, apply_overrides
from mlflow_tracking import lineage
from mlflow_tracking.card import _eps, headlines
from mlflow_tracking.run import pipeline_run, start_run
from pipelines import report


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def test_commit_and_dirty_flag(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a = 1\n")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    nothing = lineage.collect(Config(), tmp_path, tmp_path)
    assert nothing["git_commit"] is None and nothing["git_dirty"] is None
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    clean = lineage.collect(Config(), tmp_path, tmp_path)
    assert len(clean["git_commit"]) == 40
    assert clean["git_dirty"] is False and clean["git_diff_sha"] is None
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    locked = lineage.collect(Config(), tmp_path, tmp_path)
    assert locked["git_dirty"] is False
    assert locked["dvc_lock"] != clean["dvc_lock"]
    (tmp_path / "code.py").write_text("a = 2\n")
    dirty = lineage.collect(Config(), tmp_path, tmp_path)
    assert dirty["git_dirty"] is True and dirty["git_diff_sha"]


def test_a_jobs_folder_inside_another_repository_names_what_the_job_was_sent_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make submit WORKSPACE=./ws`: git would answer there, with the outer folder's commit."""
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "outer")
    workspace = tmp_path / "ws"
    workspace.mkdir()
    (workspace / "code.py").write_text("a = 2\n")
    monkeypatch.setenv(lineage.COMMIT, "0123456789abcdef-dirty")
    sent = lineage.collect(Config(), workspace, workspace)
    assert (sent["git_commit"], sent["git_dirty"]) == ("0123456789abcdef", True)
    assert sent["git_branch"] is None and sent["git_diff_sha"] is None
    monkeypatch.delenv(lineage.COMMIT)
    assert lineage.code(workspace) == (None, None)
    assert len(lineage.code(tmp_path)[0] or "") == 40


def test_data_and_settings_hashes(project: Any, tmp_path: Path) -> None:
    facts = lineage.collect(project.config, project.artifacts)
    assert facts["shards"] and facts["versions"]["torch"]
    (tmp_path / "data.dvc").write_text("outs:\n- md5: abc.dir\n  path: data\n")
    assert lineage.data_hash(tmp_path / "data.dvc") == "abc.dir"
    more = apply_overrides(project.config, {"train.epochs": 3})
    elsewhere = apply_overrides(project.config, {"paths.artifacts": "/elsewhere"})
    assert lineage.settings_hash(more) != facts["settings"]
    assert lineage.settings_hash(elsewhere) == facts["settings"]


def test_stages_of_one_command_share_a_parent(project: Any, monkeypatch: Any) -> None:
    assert pipeline_run(project.config, project.artifacts) is None
    monkeypatch.setenv("AMR_PIPELINE_RUN", "one")
    with start_run("tune", project.config, name="search", artifacts=project.artifacts) as tune:
        tune.headline({"val/clean_acc": 0.5}, "tune/")
    with start_run("train", project.config, name="amr", artifacts=project.artifacts) as train:
        pass
    assert tune.record.parent and train.record.parent
    assert tune.record.parent.key == train.record.parent.key
    monkeypatch.setenv("AMR_PIPELINE_RUN", "two")
    other = pipeline_run(project.config, project.artifacts)
    assert other is not None
    assert other.key != tune.record.parent.key

    from mlflow import MlflowClient

    client = MlflowClient(project.uri)
    run = client.get_run(train.run_id or "")
    above = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert above.data.metrics["tune/val/clean_acc"] == 0.5
    assert above.info.status == "FINISHED"
    assert run.info.run_name == "train amr"
    assert run.data.params["train.epochs"] == str(project.config.train.epochs)
    assert run.data.tags["mlflow.note.content"].startswith("Training")


def test_budgets_and_headlines_are_written_as_papers_do() -> None:
    assert [_eps("rgb", 8 / 255), _eps("rgb", 0.1), _eps("skeleton", 0.2)] == [
        "8/255",
        "0.1",
        "0.2",
    ]
    share = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}
    summary = {"clips": 100, "suite": "quick", "flagged": "pass", "clean_acc": share,
               "worst": {"both": share}, "robust_acc": {"fgsm": {"both": share}}}  # fmt: skip
    table = headlines(summary).splitlines()
    assert table[0] == "100 test clips, suite `quick`; gradient-masking checks: pass."
    assert table[-2:] == [
        "| clean | 50.0 % | 40.0 - 60.0 |",
        "| worst case, both | 50.0 % | 40.0 - 60.0 |",
    ]


def test_a_job_and_its_report_name_the_commit_they_were_sent_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lineage.COMMIT, "0123456789abcdef-changed")
    assert lineage.code(tmp_path) == ("0123456789abcdef", True)
    # As in a job's folder, where git has nothing to say.
    monkeypatch.setattr(lineage, "git", lambda root, *words: None)
    assert report.commit() == "0123456789ab-dirty"
    monkeypatch.setenv(lineage.COMMIT, "0123456789abcdef")
    assert report.commit() == "0123456789ab"
    monkeypatch.delenv(lineage.COMMIT)
    assert report.commit() is None
