"""The report: from real evaluation files of two small models to one page and one table."""

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from components.evaluation.suite import SUITES, describe
from components.evaluation.verdicts import verdicts
from components.reporting.paired import differences
from components.reporting.read import ReportError, read_results
from components.reporting.table import rows_of, terminal_table
from components.reporting.words import attack_words, duration, threat_words
from pipelines import report
from pipelines._stage import run_stage

EPS = [0.0, 0.5, 1.0]  # as in conftest.py


def _run(artifacts: Path, *words: str) -> int:
    data = artifacts.parent / "data"
    return run_stage(
        "report",
        report.write_report,
        [f"paths.artifacts={artifacts}", f"paths.data={data}", "compare=[amr,concat]", *words],
    )


class _Links(HTMLParser):
    """Everything a page would load, and all its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        keys = dict(attrs)
        self.loads += [v for k in ("src", "srcset") if (v := keys.get(k))]
        if tag == "link":
            self.loads.append(keys.get("href") or tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _page(artifacts: Path) -> _Links:
    parser = _Links()
    parser.feed((artifacts / "report" / "index.html").read_text(encoding="utf-8"))
    return parser


def test_page_shows_the_evaluation_figures_and_loads_nothing(artifacts: Path) -> None:
    assert _run(artifacts) == 0
    page = _page(artifacts)
    assert page.loads and all(source.startswith("data:image/") for source in page.loads)
    text = " ".join(" ".join(page.text).split())
    worst = json.loads((artifacts / "evaluation" / "amr-s0.json").read_text())["worst"]["both"]
    assert f"{100 * worst['value']:.1f} %" in text
    assert f"{100 * worst['low']:.1f}–{100 * worst['high']:.1f}, 12 clips" in text
    assert "at most 8/255 of the full range" in text and "0.05 m (5 cm)" in text
    assert "no-skeleton" in text and "15 clips found, 12 accepted" in text
    assert "models:/amr/2" in text and "there is no champion yet" in text
    assert "this project's own design" in text
    first_screen = text[: text.index("Look at an attack")]
    assert "amr names the right action in" in first_screen
    assert "What it holds against." in first_screen and "tries 3 attacks" in first_screen
    assert "What it costs." in first_screen and "forward and" in first_screen


def test_several_seeds_are_on_the_page_where_they_were_run(artifacts: Path) -> None:
    assert _run(artifacts) == 0 and "Over 2 seeds" not in " ".join(_page(artifacts).text)
    folder = artifacts / "evaluation"
    for variant in ("amr", "concat"):
        body = json.loads((folder / f"{variant}-s0.json").read_text())
        (folder / f"{variant}-s1.json").write_text(json.dumps({**body, "seed": 1}))
        shutil.copy(folder / f"{variant}-s0.arrow", folder / f"{variant}-s1.arrow")
    assert _run(artifacts, "seeds=[0,1]") == 0
    text = " ".join(" ".join(_page(artifacts).text).split())
    assert "Over 2 seeds" in text and "amr - concat" in text and "12 test clips" in text
    both = read_results(artifacts).seeds["models"]["amr"]["both"]
    assert f"{100 * both['value']:.1f} ±0.0 ({100 * both['low']:.1f}" in text


def test_trials_are_ranked_by_the_second_rung_and_shortened(artifacts: Path) -> None:
    assert _run(artifacts) == 0
    html = (artifacts / "report" / "index.html").read_text(encoding="utf-8")
    search = html[html.index('id="search"') : html.index('id="data"')]
    rates = re.findall(r'<td>(0\.\d+)</td><td class="text">', search)
    assert rates[:4] == ["0.002233", "0.3", "0.01", "0.5"]
    assert "4 completed; ended because: trials" in search and "data:image/png;base64," in search


def test_pictures_of_many_trials_wait_for_many_trials(artifacts: Path) -> None:
    (artifacts / "tune" / "parallel.png").write_bytes(b"lines")
    lines = "data:image/png;base64,bGluZXM="

    def search() -> str:
        assert _run(artifacts) == 0
        html = (artifacts / "report" / "index.html").read_text(encoding="utf-8")
        return html[html.index('id="search"') : html.index('id="data"')]

    assert lines not in search()
    (artifacts / "tune" / "trials.csv").write_text(
        "number,status,default,winner,robust_acc,train.lr\n0,completed,True,False,0.1,0.01\n"
        "1,stopped,False,False,0.2,0.02\n2,completed,False,True,0.5,0.03\n"
        + "".join(f"{i},completed,False,False,0.05,0.{i}\n" for i in range(3, 9))
    )
    told = search()
    assert lines in told and told.count("<tr>") == 1 + 6
    assert '<td class="text">winner</td>' in told and '<td class="text">stopped</td>' in told
    assert '<td class="text">the defaults</td>' in told


def test_evaluation_without_curves_beside_one_with_them(artifacts: Path) -> None:
    (artifacts / "evaluation" / "amr-s0_curves.json").write_text(
        '{"run": "amr-s0", "train_eps": {}}'
    )
    assert _run(artifacts) == 0
    assert "Robust accuracy against eps" in (artifacts / "report" / "index.html").read_text()


def test_training_eps_against_test_eps_over_several_runs(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(artifacts) == 0
    assert "Training eps against test eps" not in " ".join(_page(artifacts).text)
    curves, plain = {}, (artifacts / "evaluation" / "amr-s0_curves.json").read_text()
    for run, eps in (("amr-s0", 8 / 255), ("concat-s0", 2 / 255)):
        body = {**json.loads(plain), "train_eps": {"rgb": eps, "skeleton": 0.05}}
        (artifacts / "evaluation" / f"{run}_curves.json").write_text(json.dumps(body))
        curves[run] = body
    assert _run(artifacts) == 0
    text = " ".join(" ".join(_page(artifacts).text).split())
    assert text.index("concat 2/255, 5 cm") < text.index("amr 8/255, 5 cm")
    with (artifacts / "report" / "train_eps.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    both = [row for row in rows if row["run"] == "concat" and row["cell"] == "both"]
    grid = curves["concat-s0"]["grid"]
    assert [float(r["value"]) for r in both] == pytest.approx([grid[i][i] for i in range(3)])
    assert [float(r["test_eps_rgb"]) for r in both] == pytest.approx([e * 8 / 255 for e in EPS])
    assert len(rows) == 2 * 3 * len(EPS)

    other = {**curves["concat-s0"], "eps": {"rgb": [0.0, 0.1, 0.2], "skeleton": [0.0, 0.1, 0.2]}}
    (artifacts / "evaluation" / "concat-s0_curves.json").write_text(json.dumps(other))
    assert _run(artifacts) == 2
    assert "tested with another eps" in capsys.readouterr().err
    other = {**curves["concat-s0"], "clips_fingerprint": "two", "shards_fingerprint": "b"}
    (artifacts / "evaluation" / "concat-s0_curves.json").write_text(json.dumps(other))
    first = {**curves["amr-s0"], "clips_fingerprint": "one", "shards_fingerprint": "a"}
    (artifacts / "evaluation" / "amr-s0_curves.json").write_text(json.dumps(first))
    assert _run(artifacts) == 2
    assert "another shards and set of test clips" in capsys.readouterr().err


def test_classes_are_told_by_name_where_the_data_set_has_names(artifacts: Path) -> None:
    for path in (artifacts / "evaluation").glob("*-s0.json"):
        body = json.loads(path.read_text())
        for row, action in zip(body["per_class"], (1, 7, 50), strict=True):
            row["class"] = action
        path.write_text(json.dumps({**body, "source": "ntu"}))
    assert _run(artifacts) == 0
    html = (artifacts / "report" / "index.html").read_text(encoding="utf-8")
    assert gallery_of_page(html)["labels"] == [
        "drink water",
        "throw",
        "punching/slapping other person",
    ]


def gallery_of_page(html: str) -> dict[str, Any]:
    """The data that the page's script draws."""
    found = re.search(r'<script type="application/json" id="gallery-data">(.*?)</script>', html)
    assert found
    return json.loads(found[1])


def test_class_names_are_escaped(artifacts: Path) -> None:
    assert _run(artifacts) == 0
    html = (artifacts / "report" / "index.html").read_text(encoding="utf-8")
    assert "<water>" not in html and "&lt;water&gt;" in html


def test_same_files_give_the_same_page(artifacts: Path) -> None:
    page = artifacts / "report" / "index.html"
    assert _run(artifacts) == 0
    first = page.read_bytes()
    assert _run(artifacts) == 0
    assert page.read_bytes() == first


def test_every_optional_file_may_be_missing_and_the_page_says_so(artifacts: Path) -> None:
    for gone in ("index.json", "registered.json"):
        (artifacts / gone).unlink()
    for gone in ("train", "tune"):
        shutil.rmtree(artifacts / gone)
    for gone in (artifacts / "evaluation").glob("*_curves.json"):
        gone.unlink()
    for gone in (artifacts / "evaluation").glob("*.arrow"):
        gone.unlink()
    assert _run(artifacts) == 0
    text = " ".join(_page(artifacts).text)
    for name in ("index.json", "registered.json", "trials.csv", "history.csv", "_curves.json"):
        assert re.search(rf"{re.escape(name)} is not there", text), name
    assert "no paired differences" in text


def test_minimal_evaluation_of_one_cell_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "evaluation"
    folder.mkdir(parents=True)
    half = {"value": 0.5, "low": 0.2, "high": 0.8, "n": 4}
    none = {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    body = {"model": "mine", "clips": 4, "clean_acc": half, "worst": {"rgb": half}}
    body["robust_acc"] = {"fgsm": {"rgb": none}}
    (folder / "mine.json").write_text(json.dumps(body))
    assert _run(tmp_path / "artifacts") == 0
    assert "50.0" in " ".join(_page(tmp_path / "artifacts").text)


@pytest.mark.parametrize("what", ["nothing", "broken", "other"])
def test_no_usable_evaluation_is_one_clear_line(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "artifacts" / "evaluation"
    folder.mkdir(parents=True)
    if what != "nothing":
        (folder / "amr-s0.json").write_text("{" if what == "broken" else '{"clips": 3}')
    assert _run(tmp_path / "artifacts") == 2
    said = capsys.readouterr().err
    assert str(folder) in said and "evaluate" in said and "Traceback" not in said
    with pytest.raises(ReportError):
        read_results(tmp_path / "artifacts")


def test_synthetic_data_is_named_where_the_marker_lies(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(artifacts) == 0
    assert "Synthetic data" not in " ".join(_page(artifacts).text)
    data = artifacts.parent / "data"
    data.mkdir()
    (data / "sample.json").write_text("{}")
    capsys.readouterr()
    assert _run(artifacts) == 0
    assert "Synthetic data" in " ".join(_page(artifacts).text)
    words = [f"paths.artifacts={artifacts}", f"paths.data={data}"]
    assert run_stage("report", report.show, words) == 0
    assert "no results on NTU-RGB+D" in capsys.readouterr().out


def test_csv_and_table_hold_every_accuracy(artifacts: Path) -> None:
    assert _run(artifacts) == 0
    with (artifacts / "report" / "robustness.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    # clean + (fgsm, pgd20, margin_pgd, worst) x 3 cells, for two models
    assert len(rows) == 2 * (1 + 4 * 3)
    results = read_results(artifacts)
    table = terminal_table(results)
    for row in rows_of(results):
        assert f"{100 * row.value:.1f}" in table
        match = [r for r in rows if (r["model"], r["attack"], r["cell"]) == row[:3]]
        assert len(match) == 1 and float(match[0]["value"]) == row.value
    assert "test clips: 12" in table


def test_main_model_is_the_registered_one_and_comes_first(artifacts: Path) -> None:
    results = read_results(artifacts)
    assert results.main == "amr" and list(results.models) == ["amr", "concat"]
    registered = artifacts / "registered.json"
    registered.write_text('{"variant": "concat"}')
    assert list(read_results(artifacts).models) == ["concat", "amr"]


def test_paired_differences_agree_with_the_summaries(artifacts: Path) -> None:
    results = read_results(artifacts)
    rows = {(r["other"], r["cell"]): r for r in differences(artifacts, results)}
    assert len(rows) == 4
    for cell in ("rgb", "skeleton", "both"):
        ours, theirs = (results.models[m]["worst"][cell]["value"] for m in ("amr", "concat"))
        assert rows["concat", cell]["value"] == pytest.approx(ours - theirs)
        standing = verdicts(artifacts / "evaluation" / "amr-s0.arrow", cell)
        assert sum(standing.values()) / len(standing) == pytest.approx(ours)


def test_models_tested_on_other_clips_are_not_compared(artifacts: Path) -> None:
    path = artifacts / "evaluation" / "concat-s0.arrow"
    table = pa.ipc.open_file(path.read_bytes()).read_all()  # no map: the file is written again
    with pa.OSFile(str(path), "wb") as out:
        with pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(
                table.filter(pa.compute.not_equal(table["clip_id"], table["clip_id"][0]))
            )
    results = read_results(artifacts)
    assert differences(artifacts, results) == []
    assert "different clips" in results.notes[-1]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("threat_fingerprint", "threat model"),
        ("suite", "attack suite"),
        ("shards_fingerprint", "shards"),
        ("clips", "number of test clips"),
        ("clips_fingerprint", "set of test clips"),
        ("recipe", "recipe"),
    ],
)
def test_what_was_measured_on_other_terms_is_left_out_and_said(
    artifacts: Path, key: str, words: str
) -> None:
    for run in ("amr-s0", "concat-s0"):
        path = artifacts / "evaluation" / f"{run}.json"
        value = "one" if run == "amr-s0" else "another"
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    results = read_results(artifacts)
    assert list(results.models) == ["amr"]
    assert any(words in note and "variant=concat" in note for note in results.notes)
    assert _run(artifacts) == 0
    assert f"another {words}" in " ".join(_page(artifacts).text)


def test_budget_is_put_in_words() -> None:
    words = threat_words({"rgb": {"norm": "L2", "eps": 2.0}, "skeleton": None})
    assert words == [
        "Video: the whole change of the video has an L2 norm of at most 2.",
        "The skeleton is never touched.",
    ]
    assert threat_words({}) == []


@pytest.mark.parametrize("suite", SUITES)
def test_every_attack_of_a_suite_has_words(suite: str) -> None:
    for entry in describe(SUITES[suite]):
        words = attack_words(entry)
        assert words != entry["name"] and "{" not in words
    assert attack_words({"name": "mine", "attack": "own", "parameters": {}}) == "mine"


def test_durations_are_told_in_the_unit_that_fits() -> None:
    assert [duration(s) for s in (40.2, 720, 12_600)] == ["40 s", "12 min", "3.5 h"]


def test_figures_of_other_terms_than_the_settings_ask_for_are_marked(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"paths.artifacts={artifacts}", f"paths.data={artifacts.parent / 'data'}"]
    assert run_stage("report", report.show, words) == 0
    assert "another threat model" not in capsys.readouterr().out
    assert run_stage("report", report.show, [*words, "threat.rgb.eps=1/255"]) == 0
    assert "note: the figures were made with another threat model than" in capsys.readouterr().out
    assert run_stage("report", report.main, [*words, "threat.rgb.eps=1/255"]) == 0
    assert "another threat model than the present settings" in " ".join(_page(artifacts).text)
