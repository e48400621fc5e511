"""The rows under `results/`: one recipe alone, and the clips of several taken together."""

import json
import shutil
from dataclasses import replace

import pytest

from components.config import apply_overrides, load_config
from components.errors import UserError
from components.evaluation.verdicts import verdicts
from components.reporting.claims import Part, claims_of, claims_table, read_claims
from components.reporting.read import read_results
from pipelines import results
from pipelines._stage import ROOT, Stage

FACTS = {"hardware": {"cores": 2}}
HASHES = {"suite": "full", "shards_fingerprint": "5", "checkpoint_sha256": "c", "commit": "1" * 40}
CELLS = ("clean", "rgb", "skeleton", "both")


def part(folder, recipe="sample", change=None):
    """The runs in a folder of artifacts, said to be those of `recipe`."""
    for path in (folder / "evaluation").glob("*-s0.json"):
        body = json.loads(path.read_text()) | {"recipe": recipe, **HASHES} | (change or {})
        path.write_text(json.dumps(body))
    return Part(read_results(folder), folder / "evaluation")


def two(artifacts, tmp_path, change=None):
    other = tmp_path / "other"
    shutil.copytree(artifacts, other)
    change = {"shards_fingerprint": "other data"} | (change or {})
    return [part(artifacts, "one"), part(other, "two", change)]


def test_the_mean_is_that_of_the_four_cells_clip_by_clip(artifacts):
    claims = claims_of([part(artifacts)], FACTS)
    for claim in claims.values():
        figures = claim["figures"]
        mean = sum(figures[cell]["value"] for cell in CELLS) / 4
        assert figures["mean"]["value"] == pytest.approx(mean, abs=1e-4)
        assert figures["mean"]["low"] < mean < figures["mean"]["high"]
    gains = claims["concat"]["amr_minus_this"]
    for column in (*CELLS, "mean"):
        each = [claims[name]["figures"][column]["value"] for name in ("amr", "concat")]
        assert gains[column]["value"] == pytest.approx(each[0] - each[1], abs=2e-4)
    assert "amr_minus_this" not in claims["amr"]
    assert "amr - concat" in claims_table(claims)


def test_clips_of_two_recipes_are_counted_together(artifacts, tmp_path):
    parts = two(artifacts, tmp_path)
    alone = claims_of(parts[:1], FACTS)
    together = claims_of(parts, FACTS | {"recipe": "both"})
    for name, claim in together.items():
        assert claim["recipe"] == "both"
        assert claim["clips"] == 2 * alone[name]["clips"] and claim["parts"].keys() == {
            "one",
            "two",
        }
        assert claim["checkpoints"].keys() == {f"one/{name}-s0", f"two/{name}-s0"}
        assert claim["shards"].keys() == {"one", "two"}
        for cell in CELLS:
            shared = verdicts(parts[0].folder / f"{name}-s0.arrow", cell)
            assert claim["figures"][cell]["value"] == pytest.approx(
                sum(shared.values()) / len(shared), abs=1e-4
            )
    wider = [alone["amr"]["figures"]["clean"], together["amr"]["figures"]["clean"]]
    assert wider[0]["high"] - wider[0]["low"] > wider[1]["high"] - wider[1]["low"]


def test_the_clips_of_each_recipe_count_as_they_stand_there(artifacts, tmp_path):
    """Not the first one's twice."""
    parts = two(artifacts, tmp_path)
    other = parts[1].folder
    (other / "amr-s0.arrow").write_bytes((other / "concat-s0.arrow").read_bytes())
    claims = claims_of(parts, FACTS)
    alone = {name: claims_of(parts[:1], FACTS)[name]["figures"] for name in ("amr", "concat")}
    for cell in CELLS:
        expected = sum(alone[name][cell]["value"] for name in alone) / 2
        assert claims["amr"]["figures"][cell]["value"] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(
    ("key", "what"), [("suite", "attack suite"), ("threat_fingerprint", "threat model")]
)
def test_what_was_attacked_otherwise_is_not_taken_together(artifacts, tmp_path, key, what):
    parts = two(artifacts, tmp_path, {key: "another"})
    with pytest.raises(UserError, match=f"two was evaluated with another {what} than one"):
        claims_of(parts, FACTS)


def test_a_row_that_one_recipe_lacks_is_in_no_table_of_several(artifacts, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(artifacts, other)
    (other / "evaluation" / "concat-s0.json").unlink()
    data = {"shards_fingerprint": "other data"}
    assert claims_of([part(artifacts, "one"), part(other, "two", data)], FACTS).keys() == {"amr"}
    (other / "evaluation" / "amr-s0.json").rename(other / "evaluation" / "late-s0.json")
    rest = part(other, "two", {"variant": "late"})
    with pytest.raises(UserError, match="two: no evaluation of amr with a seed of one"):
        claims_of([part(artifacts, "one"), rest], FACTS)


def test_two_rows_are_compared_over_the_seeds_that_both_have(artifacts):
    """A second seed of one of them changes its own figures alone."""
    folder = artifacts / "evaluation"
    alone = claims_of([part(artifacts)], FACTS)
    body = json.loads((folder / "amr-s0.json").read_text())
    (folder / "amr-s1.json").write_text(json.dumps(body | {"seed": 1}))
    shutil.copy(folder / "concat-s0.arrow", folder / "amr-s1.arrow")
    claims = claims_of([part(artifacts)], FACTS)
    assert claims["amr"]["seeds"] == [0, 1] and claims["concat"]["seeds"] == [0]
    assert claims["concat"] == alone["concat"]
    means = [claims["amr"]["figures"]["clean"], alone["concat"]["figures"]["clean"]]
    assert means[0]["per_seed"][1] == means[1]["value"]


def test_no_clip_is_counted_twice(artifacts, tmp_path):
    """Neither by folds that share it, nor by a recipe that is named twice."""
    parts = two(artifacts, tmp_path, {"shards_fingerprint": HASHES["shards_fingerprint"]})
    with pytest.raises(UserError, match="is tested by one and again by two"):
        claims_of(parts, FACTS)
    with pytest.raises(UserError, match="is tested by one and again by one"):
        claims_of([parts[0], parts[0]], FACTS)


def test_a_row_names_the_commits_that_evaluated_it(artifacts, tmp_path):
    parts = two(artifacts, tmp_path, {"commit": "2" * 40})
    assert claims_of(parts, FACTS)["amr"]["commits"] == ["1" * 40, "2" * 40]
    parts = two(artifacts, tmp_path / "again", {"commit": None})
    with pytest.raises(UserError, match="two/amr-s0: evaluated by code of no known commit"):
        claims_of(parts, FACTS)


@pytest.fixture
def stage(artifacts, tmp_path, monkeypatch):
    """The command in a repository of its own, with evaluations of two variants."""
    monkeypatch.setattr(results, "ROOT", tmp_path)
    part(artifacts)
    words = [f"paths.artifacts={artifacts}", "compare=[amr,concat]"]
    return Stage("results", load_config(ROOT / "params.yaml", words))


def test_the_command_writes_a_file_a_row_and_prints_their_table(stage, tmp_path, capsys):
    results.main(stage)
    claims = read_claims(tmp_path / "results" / "sample")
    assert list(claims) == ["amr", "concat"] and claims["amr"]["commits"] == ["1" * 40]
    assert claims["concat"]["command"] == "make results RECIPE=sample"
    assert claims_table(claims) in capsys.readouterr().out
    more = replace(stage, config=apply_overrides(stage.config, {"compare": ["amr", "mmtm"]}))
    with pytest.raises(UserError, match="mmtm: no evaluation"):
        results.main(more)


def test_the_command_takes_recipes_together_and_says_what_one_lacks(
    stage, tmp_path, artifacts, monkeypatch, capsys
):
    other = tmp_path / "other"
    shutil.copytree(artifacts, other)
    part(other, "utd_mhad", {"shards_fingerprint": "other data"})
    folders = {"sample": artifacts, "utd_mhad": other}
    monkeypatch.setattr(Stage, "artifacts", property(lambda self: folders[self.config.recipe]))
    results.pool(stage, "both", ["sample", "utd_mhad"])
    claims = read_claims(tmp_path / "results" / "both")
    assert claims["amr"]["recipe"] == "both"
    assert claims["amr"]["parts"].keys() == {"sample", "utd_mhad"}
    assert claims["amr"]["command"].endswith("pipelines.results --pool both sample utd_mhad")
    assert "note: utd_mhad has no evaluation of amr-constant" in capsys.readouterr().out
    with pytest.raises(UserError, match="--pool"):
        results.pool(stage, "../both", ["sample"])
