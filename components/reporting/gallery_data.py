"""What the page's gallery shows: clips before and after attacks, as plain data for its script."""

import base64
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from components.evaluation.gallery import Gallery
from components.reporting.html import render
from components.reporting.words import attack_words, threat_words

CLIPS = 8
LIMIT = 3_200_000  # characters of pictures and joints on one page, which stays under 5 MB
CELLS = {"rgb": "Video", "skeleton": "Skeleton", "both": "Both"}
Row = dict[str, Any]


def gallery_data(
    galleries: Mapping[str, Gallery],
    labels: Sequence[str],
    *,
    unit: str = "metres",
    own_answers: Collection[str] = (),
    sampled: bool = True,
    limit: int = LIMIT,
) -> dict[str, Any]:
    """The data of the gallery, {} without any clip that all models were shown.

    galleries: by model, the main one first; `labels`: the name of each class, by label.
    unit: of the joints; those that are not in metres are pixels and point down.
    own_answers: ids of clips whose label is only what the model itself answered.
    sampled: the clips are a sample of a test split, and not those that somebody named.
    limit: most characters of pictures and joints. Clips that would go beyond are left out.
    """
    if not galleries:
        return {}
    rows = {model: _by_clip(gallery) for model, gallery in galleries.items()}
    main = next(iter(rows))
    shared = [clip for clip in rows[main] if all(clip in table for table in rows.values())]
    chosen = choose({clip: rows[main][clip] for clip in shared})
    media = _Media()
    clips: list[dict[str, Any]] = []
    for clip in chosen:
        mark = media.mark()
        told = {model: _outcomes(galleries[model], rows[model][clip], media) for model in rows}
        if media.size > limit and clips:
            media.back_to(mark)
            break
        label = rows[main][clip]["clean"]["label"]
        known = clip not in own_answers
        clips.append({"id": clip, "label": label, "labelKnown": known, "models": told})
    if not clips:
        return {}
    about = galleries[main].about
    attacks = {e["name"]: attack_words(e) for g in galleries.values() for e in g.about["attacks"]}
    return {
        "models": list(rows),
        "attacks": [{"key": key, "words": words} for key, words in attacks.items()],
        "cells": [{"key": cell, "words": CELLS[cell]} for cell in about["cells"]],
        "labels": list(labels),
        "metres": unit == "metres",
        "threat": threat_words(about["threat"]),
        "pictures": all(gallery.about["pictures"] for gallery in galleries.values()),
        "sampled": sampled,
        "drawn": len(shared),
        "videos": media.videos,
        "joints": media.joints,
        "clips": clips,
    }


def render_clip(
    gallery: Gallery,
    *,
    title: str,
    labels: Sequence[str],
    model: str = "model",
    unit: str = "metres",
    own_answers: Collection[str] = (),
) -> str:
    """A page of its own for clips that one model was shown: `pipelines.predict --attack`.

    gallery: of `components.evaluation.gallery_of`; labels: the name of each class, by label.
    own_answers: as in `gallery_data`.
    """
    data = gallery_data({model: gallery}, labels, unit=unit, own_answers=own_answers, sampled=False)
    return render("clip.html", title=title, gallery=data)


def choose(clips: Mapping[str, Mapping[str, Row]], count: int = CLIPS) -> list[str]:
    """Which clips are shown: half of them fall for the main model, half stand up, in turns.

    clips: in a fixed order that mixes classes, each with its rows by `clean` and `cell/attack`. The
    first ones of each kind are taken; where one kind is short, the others fill up.
    """
    falls: list[str] = []
    stands: list[str] = []
    wrong: list[str] = []
    for clip, rows in clips.items():
        if not rows["clean"]["correct"]:
            wrong.append(clip)
        else:
            (stands if all(row["correct"] for row in rows.values()) else falls).append(clip)
    half = count // 2
    pairs = zip(falls[:half], stands[:half], strict=False)
    chosen = [clip for pair in pairs for clip in pair]
    rest = [clip for clip in (*falls, *stands, *wrong) if clip not in chosen]
    return (chosen + rest)[:count]


class _Media:
    """Pictures and joints, each kept once: models that see the same clip share it."""

    def __init__(self) -> None:
        self.videos: list[str] = []
        self.joints: list[str] = []
        self.size = 0
        self._known: dict[tuple[str, bytes], int] = {}

    def add(self, kind: str, data: bytes | None) -> int | None:
        """Where `data` lies in the list `kind`; None for nothing."""
        if data is None:
            return None
        place = self._known.get((kind, data))
        if place is None:
            listed: list[str] = getattr(self, kind)
            text = base64.b64encode(data).decode()
            listed.append(text)
            self.size += len(text)
            place = self._known[kind, data] = len(listed) - 1
        return place

    def mark(self) -> tuple[int, int, int]:
        """What there is now, for `back_to`."""
        return len(self.videos), len(self.joints), self.size

    def back_to(self, mark: tuple[int, int, int]) -> None:
        """Drop what came after `mark`."""
        videos, joints, self.size = mark
        del self.videos[videos:], self.joints[joints:]
        kept = {"videos": videos, "joints": joints}
        self._known = {key: i for key, i in self._known.items() if i < kept[key[0]]}


def _by_clip(gallery: Gallery) -> dict[str, dict[str, Row]]:
    """Rows by clip and by `clean` or `cell/attack`."""
    table: dict[str, dict[str, Row]] = {}
    for row in gallery.rows.to_pylist():
        key = "clean" if row["cell"] == "clean" else f"{row['cell']}/{row['attack']}"
        table.setdefault(row["clip_id"], {})[key] = row
    return table


def _outcomes(gallery: Gallery, rows: Mapping[str, Row], media: _Media) -> dict[str, Any]:
    budget = gallery.about["threat"].get("rgb") or {}
    about = gallery.about
    found = {}
    for key, row in rows.items():
        told = {
            "best": [
                [label, round(share, 4)]
                for label, share in zip(row["labels"], row["probabilities"], strict=True)
            ],
            "own": round(row["label_probability"], 4),  # of the clip's own class
            "right": row["correct"],
            "weights": row["weights"] and [round(weight, 3) for weight in row["weights"]],
            "video": media.add("videos", row["video"]),
            "joints": media.add("joints", row["joints"]),
        }
        if key == "clean":
            told["present"] = media.add("joints", row["present"])
            told["frames"], told["steps"] = about["frames"], about["steps"]
        else:
            largest = budget["eps"] if budget.get("norm") == "Linf" else row["rgb_linf"]
            told["gain"] = max(1, int(127 / (255 * largest))) if largest else 1
            told["moved"] = [round(row["rgb_linf"], 5), round(row["skeleton_linf"], 5)]
        told["videoStep"], told["jointsStep"] = row["video_step"], row["joints_step"]
        found[key] = told
    return found
