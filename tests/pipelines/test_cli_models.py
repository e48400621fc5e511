"""`amr predict` and `amr export` on a finished project: rows, files, and who reads them."""

import csv
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from components.checkpoint import load_model
from components.errors import UserError
from components.sources import get_source
from pipelines import export, predict
from pipelines._torch_export import export_program
from tests._support.cli import ROOT, Project, amr, finished_project

BAD = {
    "skeleton-truncated": 1,
    "no-body": 1,
    "no-skeleton": 1,
    "no-video": 1,
    "video-unreadable": 1,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One run, trained (not for long) and evaluated by the real suite."""
    return finished_project(tmp_path_factory.mktemp("project"))


def clip_of(project: Project, position: int = 0) -> Any:
    """A clip with both files."""
    whole = [f for f in get_source("ntu").find(project.data).clips if f.video and f.skeleton]
    return whole[position]


def test_a_folder_gives_a_row_for_each_clip(project: Project) -> None:
    words = ["predict", project.data, "--model", project.checkpoint, *project.words]
    done = amr(*words, "--format", "csv")
    assert done.returncode == 1, done.stderr  # five planted clips cannot be read
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    found = get_source("ntu").find(project.data).clips
    assert [row["clip"] for row in rows] == [str(f.clip) for f in found]
    reasons = [row["error"] for row in rows if row["error"]]
    assert {name: sum(name in reason for reason in reasons) for name in BAD} == BAD
    assert all(bool(row["error"]) != bool(row["class_name"]) for row in rows)
    assert not [row for row in rows if "/tmp/tmp" in row["error"]]
    assert f"{len(reasons)} of {len(rows)} clips have no answer" in done.stderr

    # The same answers as the evaluation would give, clip by clip.
    test = project.test_clips()
    model, about = load_model(project.checkpoint)
    batch = test.batch(range(len(test)))
    with torch.inference_mode():
        shares = model(batch.rgb, batch.skeleton, batch.present).logits.softmax(1)
    answers = {row["clip"]: row for row in rows}
    for clip, share in zip(batch.clip_id, shares, strict=True):
        assert int(answers[clip]["action"]) == about["classes"][int(share.argmax())]
        assert float(answers[clip]["probability"]) == pytest.approx(float(share.max()), abs=1e-4)


def test_the_formats_say_the_same(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    named = [str(clip_of(project, i).clip) for i in (3, 5)]
    words = [*named, "--model", str(project.checkpoint), *project.words]
    assert predict.main([*words, "--format", "json"]) == 0
    bodies = json.loads(capsys.readouterr().out)
    assert predict.main([*words, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert predict.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, body, row, line in zip(named, bodies, rows, lines, strict=True):
        assert body["clip"] == row["clip"] == name and line.startswith(name)
        assert body["class_name"] == row["class_name"] and line.endswith(body["class_name"])
        assert row["weight_rgb"] == str(body["modality_weights"]["rgb"])


def test_one_clip_by_name_or_by_its_files(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = clip_of(project)
    video, skeleton = project.data / found.video, project.data / found.skeleton
    rest = ["--model", str(project.checkpoint), *project.words]
    texts = []
    for named in ([str(found.clip)], [str(video)], [str(skeleton)], [str(video), str(skeleton)]):
        assert predict.main([*named, *rest]) == 0
        texts.append(capsys.readouterr().out)
    assert len(set(texts)) == 1 and "modality weights: rgb 0." in texts[0]
    assert predict.main([str(video), str(tmp_path / "no.skeleton"), *rest]) == 2
    assert "no.skeleton: no such file" in capsys.readouterr().err
    assert predict.main([str(tmp_path), *rest]) == 2
    assert "holds no clip" in capsys.readouterr().err
    broken = next(f for f in get_source("ntu").find(project.data).clips if not f.video)
    assert predict.main([str(broken.clip), *rest]) == 2
    assert "no-video" in capsys.readouterr().err


def test_half_a_download_has_a_row(project: Project, tmp_path: Path) -> None:
    found = clip_of(project)
    for name in (found.video, found.skeleton):
        shutil.copy(project.data / name, tmp_path)
    (tmp_path / "S001C001P001R001A002_rgb.avi.part").write_bytes(b"RIFF")
    done = amr("predict", tmp_path, "--model", project.checkpoint, *project.words)
    first, second = done.stdout.splitlines()
    assert done.returncode == 1 and first.startswith(str(found.clip))
    assert second.startswith("S001C001P001R001A002_rgb.avi.part") and "odd-name" in second


def test_without_a_registry_it_says_what_to_do(project: Project, tmp_path: Path) -> None:
    words = ["predict", str(clip_of(project).clip), *project.words]
    absent = amr(*words, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/none.db")
    away = amr(*words, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    for done, what in ((absent, "is not there yet"), (away, "does not answer")):
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert what in done.stderr and "--model" in done.stderr
    assert not (tmp_path / "none.db").exists()


@pytest.fixture(scope="module")
def exported(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `amr export` writes."""
    folder = tmp_path_factory.mktemp("hub")
    done = amr(
        "export", folder / "amr", "--torch-export", folder / "amr.pt2", *project.words
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "nothing is uploaded" in done.stdout and "give the same classes" in done.stdout
    return folder


def test_the_hub_reads_the_card_with_its_figures(project: Project, exported: Path) -> None:
    card = ModelCard.load(exported / "amr" / "README.md")
    summary = json.loads((project.artifacts / "evaluation" / "amr-s0.json").read_text())
    assert (card.data.license, card.data.pipeline_tag) == ("apache-2.0", "video-classification")
    assert card.data.model_name == "sample-amr-s0"
    clean, *worst = card.data.eval_results
    assert clean.dataset_type == "synthetic" and clean.dataset_config == "xsub60"
    expected = [summary["clean_acc"], *summary["worst"].values()]
    for result, figure in zip([clean, *worst], expected, strict=True):
        low, high = 100 * figure["low"], 100 * figure["high"]
        assert result.metric_value == pytest.approx(figure["value"], abs=1e-4)
        assert f"({'95 % interval'} {low:.1f}-{high:.1f} %, {figure['n']} clips)" in (
            result.metric_name
        )
    text = card.text
    assert f"Results: {summary['clips']} test clips, seed 0" in text
    assert "synthetic sample" in text and "method `natural`" in text
    for name in ("clean", "worst case, both", "pgd20, skeleton"):
        assert f"| {name} | " in text


def test_an_exported_folder_is_a_model(
    project: Project, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, config = load_model(exported / "amr")
    clip = str(clip_of(project).clip)
    answers = []
    for folder in (project.checkpoint, exported / "amr"):
        assert predict.main([clip, "--json", "--model", str(folder), *project.words]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    assert sum(p.numel() for p in model.parameters()) > 1000 and config["num_classes"] == 12


def test_the_program_runs_alone_and_tells_no_secrets(project: Project, exported: Path) -> None:
    test = project.test_clips()
    batch = test.batch(range(len(test)))
    notes = {"amr.json": ""}
    program = torch.export.load(exported / "amr.pt2", extra_files=notes)
    model, _ = load_model(project.checkpoint)
    inputs = (batch.rgb, batch.skeleton, batch.present)
    with torch.inference_mode():
        expected = model(*inputs).logits
        assert torch.allclose(program.module()(*inputs), expected, atol=1e-4)
        one = tuple(part[:1] for part in inputs)
        assert torch.allclose(program.module()(*one), expected[:1], atol=1e-4)
    about = json.loads(notes["amr.json"])
    assert about["inputs"]["rgb"] == [3, 4, 16, 16] and about["classes"][0] == "drink water"
    # Neither clips, which may be licensed, nor paths of this machine travel in the file.
    assert all(float(x.float().std()) == 0 for x in program.example_inputs[0])
    with zipfile.ZipFile(exported / "amr.pt2") as archive:
        assert not [n for n in archive.namelist() if str(ROOT).encode() in archive.read(n)]


class Shifty(torch.nn.Module):
    """A model whose graph is another than what it does, as one with a branch for compilers."""

    def forward(
        self, rgb: torch.Tensor, skeleton: torch.Tensor, present: torch.Tensor
    ) -> torch.Tensor:
        """[B, 2] logits."""
        light = rgb.mean((1, 2, 3, 4))
        dark = skeleton.mean((1, 2, 3, 4)) + present.float().mean((1, 2))
        first = torch.stack([light, dark], 1)
        return -first if torch.compiler.is_compiling() else first


def test_a_program_with_other_answers_is_not_written(project: Project, tmp_path: Path) -> None:
    batch = project.test_clips().batch([0, 1])
    with pytest.raises(UserError, match="answers otherwise than the model"):
        export_program(Shifty(), batch, tmp_path / "x.pt2", {})
    assert list(tmp_path.iterdir()) == []


def test_export_refuses_what_it_must(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "README.md").write_text("my own")
    assert export.main([str(foreign), *project.words]) == 2
    assert "holds files of something else (README.md)" in capsys.readouterr().err
    assert (foreign / "README.md").read_text() == "my own"
    assert export.main([str(tmp_path / "a"), "seed=7", *project.words]) == 2
    assert "pipelines.train variant=amr seed=7" in capsys.readouterr().err
    assert export.main([str(tmp_path / "a"), "--torch-export", "a.onnx", *project.words]) == 2
    assert ".pt2" in capsys.readouterr().err
    # An evaluation of other weights must not stand on the card.
    artifacts = tmp_path / "artifacts"
    shutil.copytree(project.artifacts, artifacts)
    path = artifacts / "evaluation" / "amr-s0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "checkpoint_sha256": "0" * 64}))
    words = [*project.words, f"paths.artifacts={artifacts}"]
    assert export.main([str(tmp_path / "a"), *words]) == 2
    assert "is of another checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_second_export_replaces_the_first(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")  # a clone of the Hub's
    for _ in range(2):
        assert export.main([str(folder), *project.words]) == 0
    assert {p.name for p in folder.iterdir()} == export.OWN | {".gitattributes"}


@pytest.mark.parametrize("source", ["ntu", "utd_mhad"])
def test_the_card_names_the_terms_of_licensed_data(source: str) -> None:
    from pipelines._hub_card import Facts, front_matter, render

    accuracy = {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    facts = Facts(
        name="x", model={"rgb_frames": 8, "rgb_size": 48, "skeleton_frames": 32}, classes=["a"],
        data={"source": source, "protocol": "xsub60", "unit": "metres", "fingerprint": "f",
              "train": 1, "val": 1, "test": 1},
        synthetic=False, summary={"clips": 0, "clean_acc": accuracy}, method="pgd_at", commit=None,
    )  # fmt: skip
    front = front_matter(facts)
    assert front["license"] == "other" and ("license_link" in front) == (source == "ntu")
    assert front["model-index"][0]["results"][0]["metrics"] == []  # no clips, no figure
    assert "bound by its terms" in render(facts)
    assert ("ROSE Lab" in render(facts)) == (source == "ntu")
