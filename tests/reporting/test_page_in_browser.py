"""The page in a real browser: what it draws, by keyboard, on a phone, in the dark, offline."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from components.evaluation.gallery import read_gallery, to_file_table
from components.evaluation.piece import write_atomically
from components.reporting.gallery_data import render_clip
from pipelines import report
from pipelines._stage import run_stage
from tests._support.chromium import Browser, find_chromium
from tests.reporting.conftest import CLASSES

CHROMIUM = find_chromium()
# CI installs it (.ci/run); nothing may be skipped there.
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("CI") != "true",
    reason="no Chromium here: apt-get install chromium",
)
DRAWN = "document.getElementById('gallery')?.dataset.drawn"
# How many different colours a canvas shows: 1 when it is blank.
COLOURS = """(() => {
  const canvas = document.getElementById("%s");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(new Uint32Array(data.buffer)).size;
})()"""
FOCUS = "document.activeElement.name || document.activeElement.id"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM, "CI must install Chromium: see .ci/run"
    found = Browser(CHROMIUM, tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


@pytest.fixture
def page(artifacts: Path, browser: Browser) -> Iterator[Path]:
    """The report's page; after the test nothing was asked of a network, and no error was logged."""
    words = [f"paths.artifacts={artifacts}", f"paths.data={artifacts.parent / 'data'}"]
    words.append("compare=[amr,concat]")
    # As wide as the search draws it: wider than a phone.
    Image.new("RGB", (1200, 900), "white").save(artifacts / "tune" / "pareto.png")
    assert run_stage("report", report.write_report, words) == 0
    browser.errors.clear()
    browser.requests.clear()
    browser.look(1280)
    yield artifacts / "report" / "index.html"
    assert browser.errors == []
    asked = [url for url in browser.requests.values() if not url.startswith("data:")]
    assert all(url.startswith("file://") and url.endswith(".html") for url in asked)


def _open(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.wait(DRAWN)


def _drawn(browser: Browser, canvas: str) -> int:
    return browser.value(COLOURS % canvas)


def test_pictures_of_clip_change_and_skeleton_are_drawn_and_move(
    page: Path, browser: Browser
) -> None:
    _open(browser, page)
    assert browser.value(DRAWN).split()[1:] == ["amr", "pgd20", "both", "front"]
    for canvas in ("clean", "attacked", "added", "skeleton"):
        assert _drawn(browser, canvas) > 20, canvas
    assert browser.value(
        "document.getElementById('clean').toDataURL() !== "
        "document.getElementById('attacked').toDataURL()"
    )
    thumbnails = "[...document.querySelectorAll('.clips canvas')]"
    browser.wait(f"{thumbnails}.every((canvas) => canvas.width === 16)")
    assert browser.value(f"{thumbnails}.length") == 8
    first = browser.value("document.getElementById('frame').value")
    browser.wait(f"document.getElementById('frame').value !== '{first}'")


def test_the_keyboard_alone_chooses_clip_model_attack_cell_and_moment(
    page: Path, browser: Browser
) -> None:
    _open(browser, page)
    browser.value("document.querySelector('nav a:last-child').focus()")
    browser.press("Tab")
    assert browser.value(FOCUS) == "gallery-clip"
    assert browser.value("document.activeElement.matches(':focus-visible')")
    outline = "getComputedStyle(document.activeElement.parentElement).outlineStyle"
    browser.press("ArrowRight")
    browser.wait(f"{DRAWN} === '1 amr pgd20 both front'")
    assert browser.value(outline) == "solid"
    steps = [
        ("gallery-model", "1 concat pgd20 both front"),
        ("gallery-attack", "1 concat margin_pgd both front"),
        ("gallery-cell", "1 concat margin_pgd rgb front"),  # after the last comes the first
    ]
    for name, drawn in steps:
        browser.press("Tab")
        assert browser.value(FOCUS) == name
        browser.press("ArrowRight")
        browser.wait(f"{DRAWN} === '{drawn}'")
    assert "untouched" in browser.value(
        "document.querySelector('[data-told=skeleton]').textContent"
    )
    browser.press("Tab")
    assert browser.value(FOCUS) == "play"
    if browser.value("document.activeElement.textContent") == "Pause":
        browser.press(" ", text=" ")
    assert browser.value("document.activeElement.textContent") == "Play"
    browser.press("Tab")
    assert browser.value(FOCUS) == "frame"
    before = int(browser.value("document.activeElement.value"))
    key, after = ("ArrowRight", before + 1) if before < 7 else ("ArrowLeft", before - 1)
    browser.press(key)
    assert (
        browser.value("document.querySelector('.player output').textContent") == f"{after + 1} / 8"
    )
    browser.press("Tab")
    still = browser.value("document.getElementById('skeleton').toDataURL()")
    browser.press("ArrowRight")
    browser.wait(f"{DRAWN}.endsWith('side')")
    assert browser.value("document.getElementById('skeleton').toDataURL()") != still


def test_every_choice_says_what_both_predictions_are(page: Path, browser: Browser) -> None:
    _open(browser, page)
    gallery = read_gallery(page.parent.parent / "evaluation" / "concat-s0_gallery.arrow")
    rows = {(r["clip_id"], r["cell"], r["attack"]): r for r in gallery.rows.to_pylist()}
    told = set()
    for clip in range(8):
        for cell in ("rgb", "skeleton", "both"):
            told.add(_check_words(browser, rows, clip, cell))
    assert {"stands", "is fooled"} <= told


def _check_words(browser: Browser, rows: dict, clip: int, cell: str) -> str:
    """Choose one clip and cell of `concat`, and hold its words to the gallery's file."""
    for name, value in (("clip", clip), ("model", "concat"), ("cell", cell)):
        browser.value(f"document.querySelector('[name=gallery-{name}][value=\"{value}\"]').click()")
    name = browser.value(
        f"JSON.parse(document.getElementById('gallery-data').textContent).clips[{clip}].id"
    )
    clean, hit = rows[name, "clean", "clean"], rows.get((name, cell, "pgd20"))
    words = browser.value("document.querySelector('.verdict').textContent")
    percents = [f"{100 * p:.1f}\N{NO-BREAK SPACE}%" for p in clean["probabilities"][:1]]
    assert words.startswith(f"concat says {CLASSES[clean['labels'][0]]} ({percents[0]})")
    if hit is None:
        assert not clean["correct"] and "nothing attacks it" in words
        return "wrong"
    assert f"it says {CLASSES[hit['labels'][0]]} (" in words
    end = "It stands." if hit["correct"] else "It is fooled."
    assert words.endswith(end)
    return "stands" if hit["correct"] else "is fooled"


def test_weights_are_shown_for_the_model_that_has_them(page: Path, browser: Browser) -> None:
    _open(browser, page)
    weights = "document.querySelectorAll('.weights').length"
    assert browser.value(weights) in (1, 2)
    browser.value("document.querySelector('[name=gallery-model][value=concat]').click()")
    assert browser.value(weights) == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_hangs_over_on_a_phone(page: Path, browser: Browser, dark: bool) -> None:
    browser.look(390, 844, dark=dark)
    _open(browser, page)
    assert browser.value(OVERFLOW) == 0
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    bright = sum(map(int, re.findall(r"\d+", paper)[:3])) / 3
    assert bright < 60 if dark else bright > 200
    assert _drawn(browser, "skeleton") > 20
    small = browser.value(
        "[...document.querySelectorAll('.segments label, #play')]"
        ".filter((box) => box.getBoundingClientRect().height < 30).length"
    )
    assert small == 0  # large enough for a thumb


def test_ink_is_told_from_paper_in_both_schemes(page: Path, browser: Browser) -> None:
    """4.5 to 1 at least, which WCAG asks of text."""
    for dark in (False, True):
        browser.look(1280, dark=dark)
        _open(browser, page)
        poor = browser.value(CONTRAST)
        assert poor == [], f"dark={dark}"


CONTRAST = """(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).map((v) => v / 255)
      .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((numbers(colour)[3] ?? 1) > 0) return colour;
    }
  };
  const poor = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const both = [light(getComputedStyle(element).color), light(paper(element))];
    const ratio = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    if (ratio < 4.5) poor.add(element.className + " " + element.textContent.slice(0, 40));
  }
  return [...poor];
})()"""


def test_answers_alone_where_pictures_are_not_allowed(
    artifacts: Path, page: Path, browser: Browser
) -> None:
    for path in (artifacts / "evaluation").glob("*_gallery.arrow"):
        gallery = read_gallery(path)
        kept = [
            {**row, **dict.fromkeys(("video", "video_step", "joints", "joints_step", "present"))}
            for row in gallery.rows.to_pylist()
        ]
        rows = pa.Table.from_pylist(kept, schema=gallery.rows.schema)
        closed = gallery._replace(rows=rows, about={**gallery.about, "pictures": False})
        write_atomically(path, to_file_table(closed))
    words = [f"paths.artifacts={artifacts}", f"paths.data={artifacts.parent / 'data'}"]
    words.append("compare=[amr,concat]")
    assert run_stage("report", report.write_report, words) == 0
    browser.open(page)
    assert browser.value("document.querySelectorAll('#gallery canvas').length") == 0
    assert "evaluate.allow_licensed_export" in browser.value("document.body.textContent")
    assert " says " in browser.value("document.querySelector('.verdict').textContent")


def test_a_page_of_one_clip_works_alone(page: Path, browser: Browser, tmp_path: Path) -> None:
    gallery = read_gallery(page.parent.parent / "evaluation" / "amr-s0_gallery.arrow")
    alone = tmp_path / "clip.html"
    alone.write_text(render_clip(gallery, title="one clip", labels=CLASSES, model="amr"))
    _open(browser, alone)
    assert _drawn(browser, "attacked") > 20
    assert not browser.value("document.querySelector('[name=gallery-model]').checkVisibility()")


def test_the_browser_refuses_whatever_the_page_might_load(page: Path, browser: Browser) -> None:
    """The page's own policy holds even for an address that got into it."""
    other = page.with_name("other.html")
    shutil.copy(page, other)
    text = other.read_text()
    other.write_text(text.replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>'))
    browser.open(other)
    browser.wait("document.readyState === 'complete'")
    assert browser.refused == ["http://127.0.0.1:9/x.png"]
    assert any("Content Security Policy" in error for error in browser.errors)
    browser.errors.clear()


def test_page_is_small_enough_to_be_sent(page: Path) -> None:
    assert page.stat().st_size < 5_000_000
