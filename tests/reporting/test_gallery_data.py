"""What the gallery shows is chosen by rule, fits on the page, and needs the licence's word."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from components.attacks import Budget, ThreatModel
from components.evaluation.gallery import SCHEMA, Gallery, gallery_of, read_gallery, shown_of
from components.evaluation.suite import QUICK
from components.models import build_model
from components.reporting.gallery_data import choose, gallery_data, render_clip
from tests.reporting.conftest import CLASSES, MODEL, make_clips

THREAT = ThreatModel(rgb=Budget("Linf", 8 / 255), skeleton=Budget("Linf", 0.05))


def _shown(pictures: bool = True) -> Gallery:
    """One clip as `pipelines.predict --attack` shows it: its label is the model's own answer."""
    torch.manual_seed(1)
    model = build_model({**MODEL, "fusion": "amr"}).eval()
    clips = make_clips(1)
    with torch.no_grad():
        own = model(clips.rgb, clips.skeleton, clips.present).logits.argmax(1)
    clips = clips._replace(label=own)
    return gallery_of(model, clips, shown_of(QUICK), THREAT, seed=0, pictures=pictures)


def _rows(clean: bool, *attacked: bool) -> dict[str, dict[str, Any]]:
    rows = {f"both/attack{i}": {"correct": right} for i, right in enumerate(attacked)}
    return {"clean": {"correct": clean}, **rows}


def test_clips_that_fall_and_clips_that_stand_take_turns() -> None:
    clips = {f"falls{i}": _rows(True, True, False) for i in range(6)}
    clips |= {"wrong": _rows(False)}
    clips |= {f"stands{i}": _rows(True, True, True) for i in range(3)}
    chosen = choose(clips)
    assert chosen[:6] == ["falls0", "stands0", "falls1", "stands1", "falls2", "stands2"]
    assert chosen[6:] == ["falls3", "falls4"]
    assert choose({"a": _rows(False), "b": _rows(True, True)}) == ["b", "a"]


def test_clips_beyond_the_limit_are_left_out_and_with_them_their_pictures(measured: Path) -> None:
    galleries = {m: read_gallery(measured / f"{m}-s0_gallery.arrow") for m in ("amr", "concat")}
    whole = gallery_data(galleries, CLASSES)
    assert len(whole["clips"]) == 8 and whole["drawn"] == 12

    def size(data: dict[str, Any]) -> int:
        return sum(map(len, data["videos"] + data["joints"]))

    less = gallery_data(galleries, CLASSES, limit=size(whole) // 2)
    assert 1 <= len(less["clips"]) < 8 and size(less) <= size(whole) // 2
    assert less["clips"] == whole["clips"][: len(less["clips"])]
    assert len(gallery_data(galleries, CLASSES, limit=1)["clips"]) == 1


def test_models_share_the_pictures_of_the_clean_clip(measured: Path) -> None:
    galleries = {m: read_gallery(measured / f"{m}-s0_gallery.arrow") for m in ("amr", "concat")}
    for clip in gallery_data(galleries, CLASSES)["clips"]:
        one, other = (clip["models"][model]["clean"] for model in ("amr", "concat"))
        assert one["video"] == other["video"] and one["joints"] == other["joints"]


def test_a_gallery_without_the_licence_shows_answers_alone(measured: Path) -> None:
    closed = _shown(pictures=False)
    for name in ("video", "joints", "present"):
        assert closed.rows[name].null_count == closed.rows.num_rows
    html = render_clip(closed, title="closed", labels=CLASSES, model="amr")
    assert "evaluate.allow_licensed_export=true" in html and "<canvas" not in html
    data = _data(html)
    assert data["videos"] == data["joints"] == [] and not data["pictures"]
    assert data["clips"][0]["models"]["amr"]["both/pgd20"]["best"]


def test_one_clip_is_a_page_of_its_own() -> None:
    shown = _shown()
    (name,) = set(shown.rows["clip_id"].to_pylist())
    html = render_clip(shown, title="my <clip>", labels=CLASSES, model="amr", own_answers=[name])
    assert "drawn by a hash" not in html and "away from the model's own answer" in html
    named = render_clip(shown, title="x", labels=CLASSES)
    assert "away from the model's own answer" not in named
    assert "my &lt;clip&gt;" in html and "evaluate.allow_licensed_export" not in html
    data = _data(html)
    assert data["models"] == ["amr"] and not data["sampled"]
    assert [clip["labelKnown"] for clip in data["clips"]] == [False]
    outcomes = data["clips"][0]["models"]["amr"]
    assert set(outcomes) == {"clean"} | {
        f"{cell}/{attack}"
        for cell in ("rgb", "skeleton", "both")
        for attack in ("pgd20", "margin_pgd")
    }
    assert outcomes["clean"]["right"] and outcomes["both/pgd20"]["gain"] == 15
    assert len(outcomes["clean"]["weights"]) == 2
    assert base64.b64decode(data["videos"][0])[8:12] == b"WEBP"


def test_nothing_to_show_is_said() -> None:
    assert gallery_data({}, CLASSES) == {}
    empty = Gallery(SCHEMA.empty_table(), _shown().about)
    assert gallery_data({"amr": empty}, CLASSES) == {}
    assert "no gallery" in render_clip(empty, title="x", labels=CLASSES)


def test_a_name_cannot_end_the_data_of_the_page() -> None:
    names = ["</script><script>alert(1)</script>", *CLASSES[1:]]
    html = render_clip(_shown(), title="x", labels=names)
    assert "alert(1)</script>" not in html and html.count("<script") == 2
    assert _data(html)["labels"] == names


def _data(html: str) -> dict[str, Any]:
    found = re.search(r'id="gallery-data">(.*?)</script>', html)
    assert found
    return json.loads(found[1])


@pytest.mark.parametrize("what", ["text", "table"])
def test_other_files_are_no_gallery(what: str, tmp_path: Path) -> None:
    path = tmp_path / "amr-s0_gallery.arrow"
    path.write_text("no table")
    if what == "table":
        with pa.ipc.new_file(str(path), pa.schema([])) as writer:
            writer.write_table(pa.table({}))
    with pytest.raises(ValueError, match="evaluate again"):
        read_gallery(path)
