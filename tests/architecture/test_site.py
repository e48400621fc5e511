"""The documentation site builds without a warning, needs no network, and its examples work."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.config import recipes

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# What a browser would fetch by itself when it opens a page (a link that one clicks is none).
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?(?:https?:)?//"""
    r"""|<link[^>]*rel=["']?(?:stylesheet|preconnect|preload|icon)[^>]*href=["']?(?:https?:)?//"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_on_the_site(site: Path) -> None:
    pages = {p.relative_to(DOCS).with_suffix(".html") for p in DOCS.rglob("*.md")}
    assert pages <= {p.relative_to(site) for p in site.rglob("*.html")}


def test_no_page_fetches_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not FETCHED.search(page.read_text()), page


def test_equations_are_drawn_without_a_script(site: Path) -> None:
    text = (site / "amr.html").read_text()
    assert text.count("<math") > 10 and "\\mathrm" not in text and "$$" not in text


@pytest.mark.parametrize("link", ["absent.md", "data.md#no-such-part", "../absent/file.md"])
def test_a_wrong_link_stops_the_build(link: str, tmp_path: Path) -> None:
    """Strict, so that the tests above can fail."""
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "_site.py").write_text((DOCS / "_site.py").read_text())
    (docs / "data.md").write_text("# Data\n")
    (docs / "start.md").write_text(f"# Start\n\n[there]({link})\n")
    settings["nav"] = ["start.md", "data.md"]
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(settings))
    words = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    built = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert built.returncode != 0 and link.strip("./") in built.stderr


def test_the_python_of_the_start_page_runs_and_does_what_it_says() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (DOCS / "start.md").read_text(), re.M | re.S)
    names: dict = {}
    exec(compile(code, "docs/start.md", "exec"), names)
    assert 0.049 < float(names["change"]) <= 0.05
    assert bool((names["adversarial"].rgb == names["clips"].rgb).all())
    assert names["found"].summary["worst"]["both"]["n"] == 8


def test_the_recipes_and_the_variant_of_the_recipes_page_are_valid(tmp_path: Path) -> None:
    text = (DOCS / "recipes.md").read_text()
    recipe, fold, variant = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)
    table = (ROOT / "recipes" / "variants.yaml").read_text()
    (tmp_path / "kitchen.yaml").write_text(recipe.replace("[amr, late]", "[amr, late-long]"))
    (tmp_path / "variants.yaml").write_text(table + variant)
    values = recipes.compose(tmp_path, "kitchen")
    assert values["data"]["custom"] == {"subjects": [1, 2, 3, 4]} and values["tune"]["trials"] == 0
    (tmp_path / "kitchen_2.yaml").write_text(fold)
    other = recipes.compose(tmp_path, "kitchen_2")
    assert other["data"]["val_subjects"] == [6] and other["train"] == values["train"]


@pytest.mark.parametrize("page", ["start", "recipes", "threat-model", "coming-from"])
def test_pages_name_only_what_there_is(page: str) -> None:
    """Recipes, variants, modules and settings in code on the new pages."""
    from components.config.load import valid_keys
    from components.config.removed import REMOVED

    text = re.sub(r"^```python.*?^```", "", (DOCS / f"{page}.md").read_text(), flags=re.M | re.S)
    for module in re.findall(r"python -m (pipelines\.\w+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
    sections = {key for key in valid_keys() if "." not in key}
    for key in re.findall(r"\b([a-z_]+(?:\.[a-z_]+)+)\b(?!\()", text):
        file = key.endswith((".yaml", ".md", ".py", ".html", ".json"))
        if key.split(".")[0] in sections and not file:
            assert key in valid_keys() or key in REMOVED, key
