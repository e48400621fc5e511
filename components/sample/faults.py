"""Plants, in a few extra clips, the faults that real NTU files have, so that ingest meets them."""

from dataclasses import replace

import numpy as np

from components.ntu.ids import ClipId
from components.ntu.roster import CAMERAS, missing_clips
from components.sample.body import SPINE_BASE
from components.sample.plan import SUBJECTS, Style, random_state
from components.sample.recording import Recording, Track, record
from components.sample.skeleton_file import skeleton_text

# what is planted -> whether a clip with it can still be used
FAULTS = {
    "empty_start": True,
    "gap": True,
    "ghost": True,
    "third_body": True,
    "nan_joints": True,
    "lf_lines": True,
    "short_video": True,
    "listed_missing": False,
    "truncated_skeleton": False,
    "empty_skeleton": False,
    "no_skeleton": False,
    "no_video": False,
    "broken_video": False,
}
# A clip of the official list of missing skeletons (NTURGB-D repository), so that it is rejected.
LISTED = ClipId(5, 2, 4, 1, 1)


def plan_faults(clips: list[ClipId]) -> dict[ClipId, str]:
    """One extra clip per fault, under names that the plan does not use."""
    taken, planned = {*clips, LISTED}, {}
    for i, fault in enumerate(FAULTS):
        if fault == "listed_missing":
            planned[LISTED] = fault
            continue
        template = clips[(i * 37) % len(clips)]
        # From another subject on each time, so that all splits meet faults.
        people = (*SUBJECTS[i:], *SUBJECTS[:i])
        free = (template._replace(subject=p, camera=c) for p in people for c in CAMERAS)
        name = next(n for n in free if n not in taken and str(n) not in missing_clips())
        taken.add(name)
        planned[name] = fault
    return dict(sorted(planned.items()))


def faulty_recording(style: Style, name: ClipId, fault: str) -> tuple[Recording, str | None]:
    """The recording and the text of its skeleton file; None when there is to be no file."""
    rng = random_state(style.seed, "fault", name)
    clip = record(style, name)
    tracks, newline = list(clip.tracks), "\r\n"
    visible = np.ones((clip.frames, len(tracks)), bool)
    if fault == "empty_start":
        visible[:5] = False
    elif fault == "gap":
        visible[clip.frames // 3 : clip.frames // 2] = False
    elif fault == "ghost":
        tracks.append(furniture(tracks[0], rng))
        visible = np.concatenate([visible, rng.random((clip.frames, 1)) < 0.8], 1)
    elif fault == "third_body":
        for shift in (0.9, -1.0)[: 3 - len(tracks)]:
            tracks.append(bystander(tracks[0], shift, rng))
        late = np.arange(clip.frames)[:, None] >= clip.frames // 4
        visible = np.concatenate([visible, np.repeat(late, len(tracks) - visible.shape[1], 1)], 1)
    elif fault == "nan_joints":
        seen = tracks[0].seen.copy()
        seen[2:6, 7] = np.nan
        tracks[0] = replace(tracks[0], seen=seen)
    elif fault == "empty_skeleton":
        visible[:] = False
    elif fault == "lf_lines":
        newline = "\n"
    text = skeleton_text(tracks, visible, newline)
    if fault == "truncated_skeleton":
        text = text[: int(len(text) * 0.6)]
    elif fault == "lf_lines":
        text += "\n  \n"
    return clip, None if fault == "no_skeleton" else text


def furniture(actor: Track, rng: np.random.Generator) -> Track:
    """A "body" on a chair: wide, low, nearly still; tracked under its own id."""
    frames = len(actor.seen)
    shape = rng.normal(0, 1, (25, 3)) * np.array([0.35, 0.12, 0.08])
    place = actor.true[0, SPINE_BASE] + np.array([0.9, -0.3, 0.4])
    seen = place + shape + rng.normal(0, 0.01, (frames, 25, 3))
    state = np.ones((frames, 25), int)
    return replace(actor, body_id=actor.body_id + 11, seen=seen, state=state)


def bystander(actor: Track, shift: float, rng: np.random.Generator) -> Track:
    """A person beside the actor who only stands there."""
    still = np.repeat(actor.seen[:1], len(actor.seen), 0) + np.array([shift, 0.0, 0.5])
    seen = still + rng.normal(0, 0.008, still.shape)
    return replace(actor, body_id=actor.body_id + 7 + int(shift > 0), seen=seen)
