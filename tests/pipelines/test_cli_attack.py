"""`amr predict --attack`: clips of files before and after attacks, in print and on a page."""

import csv
import io
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.checkpoint import load_model, save_checkpoint
from components.datasets import ClipDataset
from components.evaluation.gallery import gallery_of, shown_of
from components.evaluation.piece import threat_of
from components.evaluation.suite import QUICK
from components.shards import ShardSet
from components.sources import get_source
from mlflow_tracking.serving import Predictor
from pipelines import _attacked, predict
from pipelines._predictions import classify
from tests._support.chromium import Browser, find_chromium
from tests._support.cli import Project, amr, finished_project

ATTACKS = ("pgd20", "margin_pgd")
CELLS = ("rgb", "skeleton", "both")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One run on a sample whose files are all listed as its own.

    Nobody has trained its model, so its classes are put in an order in which it is right of a clip.
    """
    made = finished_project(tmp_path_factory.mktemp("project"))
    model, about = load_model(made.checkpoint)
    batch = _clips(made).batch([0])
    says = int(model(batch.rgb, batch.skeleton, batch.present).logits.argmax(1))
    shows, order = int(batch.label), list(about["classes"])
    order[says], order[shows] = order[shows], order[says]
    save_checkpoint(made.checkpoint, model, {**about, "classes": order})
    return made


def _clips(project: Project) -> ClipDataset:
    """All clips, from the shards."""
    shards, section = ShardSet.open(project.artifacts / "shards"), project.config.model
    _, about = load_model(project.checkpoint)
    return ClipDataset(
        shards,
        range(len(shards.clip_ids)),
        about["classes"],
        rgb_frames=section.rgb_frames,
        rgb_size=section.rgb_size,
        skeleton_frames=section.skeleton_frames,
    )


@pytest.fixture(scope="module")
def right(project: Project) -> Any:
    """Some clips before and after attacks, from the shards, and which are right as they are."""
    model, _ = load_model(project.checkpoint)
    threat = threat_of(project.config.threat)
    batch = _clips(project).batch(range(4))
    shown = gallery_of(model, batch, shown_of(QUICK), threat, seed=0)
    rows = shown.rows.to_pylist()
    names = [row["clip_id"] for row in rows if row["attack"] == "pgd20" and row["cell"] == "both"]
    assert batch.clip_id[0] in names
    return rows, names


def _data(page: Path) -> dict[str, Any]:
    found = re.search(r'id="gallery-data">(.*?)</script>', page.read_text())
    assert found
    return json.loads(found[1])


def _files(project: Project, name: str) -> tuple[Path, Path]:
    found = next(f for f in get_source("ntu").find(project.data).clips if str(f.clip) == name)
    return project.data / found.video, project.data / found.skeleton


def test_a_named_clip_meets_what_it_met_in_the_evaluation(
    project: Project, right: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, names = right
    page = tmp_path / "attack.html"
    words = [names[0], "--attack", "--model", str(project.checkpoint), "--page", str(page)]
    assert predict.main([*words, "--format", "csv", *project.words]) == 0
    out = capsys.readouterr()
    found = list(csv.DictReader(io.StringIO(out.out)))
    expected = [row for row in rows if row["clip_id"] == names[0]]
    assert len(found) == len(expected) == 1 + len(CELLS) * len(ATTACKS)
    for one, other in zip(found, expected, strict=True):
        assert (one["cell"], one["attack"]) == (other["cell"], other["attack"])
        assert one["correct"] == str(other["correct"]) and one["label_known"] == "True"
        assert float(one["probability"]) == pytest.approx(other["probabilities"][0], abs=1e-4)
        assert float(one["weight_rgb"]) == pytest.approx(other["weights"][0], abs=1e-4)
    assert f"page: {page}" in out.err
    data = _data(page)
    assert data["models"] == ["amr-s0"] and data["pictures"] and not data["sampled"]
    assert data["clips"][0]["labelKnown"] and data["clips"][0]["id"] == names[0]


def test_two_files_without_a_class_lead_away_from_the_own_answer(
    project: Project, right: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, skeleton = (
        shutil.copy(file, tmp_path / f"mine{file.suffix}") for file in _files(project, right[1][0])
    )
    page = tmp_path / "mine.html"
    words = [video, skeleton, "--attack", "--model", str(project.checkpoint), "--page", str(page)]
    words = [*map(str, words), *project.words]
    assert predict.main(words) == 0
    text = capsys.readouterr().out
    assert text.startswith("mine (nobody has said what it shows)\n  as it is ")
    assert "away from the model's own answer" in text and str(page) in text
    lines = [line for line in text.splitlines() if "PGD" in line]
    assert len(lines) == 6 and all(line.endswith(("stands", "fooled")) for line in lines)
    # A copy elsewhere is no file of the sample any more, whatever its content.
    assert "evaluate.allow_licensed_export=true" in text
    closed = _data(page)
    assert closed["videos"] == closed["joints"] == []
    assert not closed["clips"][0]["labelKnown"]
    assert predict.main([*words, "evaluate.allow_licensed_export=true"]) == 0
    assert "allow_licensed_export" not in capsys.readouterr().out
    assert _data(page)["videos"] and _data(page)["joints"]


def test_a_folder_has_rows_for_what_cannot_be_read(
    project: Project, right: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in _files(project, right[1][0]):
        shutil.copy(file, tmp_path)
    broken = tmp_path / "S001C001P001R001A999.skeleton"
    broken.write_text("0\n")
    page = tmp_path / "folder.html"
    rest = ["--attack", "--model", str(project.checkpoint), "--page", str(page), *project.words]
    assert predict.main([str(tmp_path), "--json", *rest]) == 1
    out = capsys.readouterr()
    found = json.loads(out.out)
    assert len({row["clip"] for row in found}) == 2 and "1 of 2 clips" in out.err
    (bad,) = [row for row in found if "error" in row]
    assert bad["clip"] in (broken.name, broken.stem) and len(_data(page)["clips"]) == 1


def test_slips_are_named_before_any_attack(project: Project, right: Any, tmp_path: Path) -> None:
    rest = ["--attack", "--model", project.checkpoint, *project.words]
    nowhere = amr("predict", right[1][0], *rest, "--page", tmp_path / "no" / "a.html")
    twice = amr("predict", right[1][0], right[1][0], *rest)
    many = amr("predict", project.data, *rest)
    for done, what in ((nowhere, "no folder"), (twice, "twice"), (many, "takes up to 8 clips")):
        assert done.returncode == 2 and what in done.stderr and done.stdout == ""
        assert done.stderr.count("\n") == 1


def test_a_class_that_the_model_does_not_know(project: Project, right: Any) -> None:
    shards = {"source": "ntu", "codec": "raw", "frames": 4, "size": 24, "margin": 0.15}
    predictor = Predictor.of_checkpoint(project.checkpoint, {**shards, "unit": "metres"})
    jobs, _ = predict.jobs_of([right[1][0]], get_source("ntu"), project.data)
    threat = threat_of(project.config.threat)
    (one,) = classify(predictor, [replace(jobs[0], action=60)])
    found = _attacked.attack(predictor, one, threat, seed=0, pictures=False)
    assert not found.label_known and found.gallery is not None and one.answer
    assert set(found.gallery.rows["label"].to_pylist()) == {one.answer["label"]}


@pytest.mark.skipif(
    find_chromium() is None and os.environ.get("CI") != "true",
    reason="no Chromium here: apt-get install chromium",
)
def test_the_page_works_in_a_browser_by_keyboard(
    project: Project, right: Any, tmp_path: Path
) -> None:
    page = tmp_path / "attack.html"
    names = list(dict.fromkeys(row["clip_id"] for row in right[0]))[:2]
    done = amr(
        "predict", *names, "--attack", "--model", project.checkpoint, "--page", page,
        *project.words,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    program = find_chromium()
    assert program, "CI must install Chromium: see .ci/run"
    browser = Browser(program, tmp_path)
    try:
        for width, dark in ((1280, False), (390, True)):
            browser.look(width, dark=dark)
            browser.open(page)
            browser.wait("document.getElementById('gallery')?.dataset.drawn")
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert browser.value(wide) == 0
            verdict = "document.querySelector('.verdict').textContent"
            first = browser.value(verdict)
            assert first.startswith(f"{browser.value(CLIP)}: amr-s0 says ")
            browser.press("Tab")
            assert browser.value("document.activeElement.name") == "gallery-clip"
            browser.press("ArrowRight")
            browser.wait(f"{verdict} !== {json.dumps(first)}")
            browser.press("Tab")
            assert browser.value("document.activeElement.name") == "gallery-attack"
        assert browser.errors == []
        asked = [url for url in browser.requests.values() if not url.startswith("data:")]
        assert asked and all(url.startswith("file://") for url in asked)
    finally:
        browser.close()


CLIP = "JSON.parse(document.getElementById('gallery-data').textContent).clips[0].id"
