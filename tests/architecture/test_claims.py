"""Every table of accuracies that README and docs print is made of the files in `results/`."""

import json
import re
from pathlib import Path

import pytest

from components.config import load_config
from components.config.recipes import read_variants, recipe_names
from components.evaluation.suite import entries_of, suite_hash
from components.reporting.claims import claims_table, read_claims

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"<!-- results:(?P<recipe>\w+) -->\n(?P<text>.*?)\n<!-- /results -->", re.S)
CLAIMS = sorted((ROOT / "results").glob("*/*.json"))


def blocks():
    for page in PAGES:
        for found in BLOCK.finditer(page.read_text()):
            yield page, found["recipe"], found["text"]


def test_readme_prints_the_results():
    assert "utd_mhad" in {recipe for page, recipe, _ in blocks() if page.name == "README.md"}


@pytest.mark.parametrize(("page", "recipe", "text"), blocks())
def test_a_printed_table_is_the_one_of_its_files(page, recipe, text):
    table = claims_table(read_claims(ROOT / "results" / recipe))
    printed = "\n".join(line.removeprefix("    ") for line in text.strip("\n").splitlines())
    assert printed.rstrip() == table


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_table_of_accuracies_stands_outside_of_the_blocks(page):
    outside = BLOCK.sub("", page.read_text())
    # A row of such a table: a name, then five accuracies with intervals.
    assert not re.findall(r"^ +\S+ +\d+(?: +\d+\.\d \(\d+\.\d, \d+\.\d\)){4,5}$", outside, re.M)


@pytest.mark.parametrize("path", CLAIMS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_claim_names_all_it_hangs_on(path):
    claim = json.loads(path.read_text())
    assert claim["recipe"] == path.parent.name
    assert claim["variant"] == path.stem in read_variants(ROOT / "recipes")
    for recipe in claim.get("parts", [claim["recipe"]]):  # several: their clips taken together
        assert recipe in recipe_names(ROOT / "recipes")
        config = load_config(ROOT / "params.yaml", [f"recipe={recipe}"])
        assert claim["variant"] in config.compare
        assert claim["suite"] == config.evaluate.suite
    assert sum(claim.get("parts", {"": claim["clips"]}).values()) == claim["clips"]
    assert claim["commits"] and all(re.fullmatch(r"[0-9a-f]{40}", c) for c in claim["commits"])
    runs = len(claim["seeds"]) * len(claim.get("parts", [""]))
    assert claim["clips"] > 0 and runs == len(claim["checkpoints"]) == len(claim["flags"])
    for figure in claim["figures"].values():
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1


def test_a_claimed_part_stands_beside_the_row_without_it():
    for folder in {path.parent for path in CLAIMS}:
        if (folder / "amr.json").is_file():
            assert (folder / "amr-mean.json").is_file(), f"{folder.name}: AMR without its attention"


def test_rows_of_an_earlier_suite_say_so():
    claims = read_claims(ROOT / "results" / "utd_mhad")
    now = suite_hash(entries_of("full", frozenset({"weights", "aux"})))
    present = {name: {**claim, "suite_hash": now} for name, claim in claims.items()}
    assert "as it was before" not in claims_table(present)
    present["late"]["suite_hash"] = "0" * 12
    assert claims_table(present).endswith("measured with `full` as it was before: late")
