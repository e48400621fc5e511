"""Writes the whole sample: plan, play, film, encode, in parallel; resumable and repeatable."""

import contextlib
import functools
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.ntu.ids import ClipId
from components.progress_bar import progress
from components.sample.faults import FAULTS, faulty_recording, plan_faults
from components.sample.folder import (
    README,
    SKELETONS,
    VIDEOS,
    own_files,
    read_marker,
    write_atomically,
    write_marker,
)
from components.sample.plan import ACTIONS, Style, plan_clips, side_of
from components.sample.recording import record
from components.sample.render import render
from components.sample.skeleton_file import skeleton_text
from components.sample.video_file import write_video

VERSION = 2  # raised whenever the same parameters give other bytes
CGROUP = Path("/sys/fs/cgroup/cpu.max")  # "quota period", or "max period"
log = logging.getLogger("sample")


@dataclass(frozen=True)
class Summary:
    """What a run left in the folder, and how much of it was already there."""

    clips: int
    faulty: int
    written: int
    bytes: int
    sides: dict[str, int]


def write_sample(
    folder: Path, style: Style, clips_per_class: int, *, dirty: bool = True, workers: int = 0
) -> Summary:
    """Lay the sample down in `folder`; the same bytes for any number of worker processes.

    An interrupted run goes on where it stopped; a finished one is left alone; one with other
    parameters is replaced. Raises ValueError when the folder holds anything that is not the
    generator's own, or when the names do not allow so many clips.
    """
    clips = plan_clips(style.subjects, clips_per_class)
    faults = plan_faults(clips) if dirty else {}
    parameters: dict[str, Any] = {
        "version": VERSION,
        **asdict(style),
        "frames": list(style.frames),
        "clips_per_class": clips_per_class,
        "dirty": dirty,
    }
    files = _file_names(clips, faults)
    there = own_files(folder)
    marker = read_marker(folder) if there else None
    if marker and marker["parameters"] != parameters:
        log.info("%s holds a sample with other parameters; it is replaced", folder)
        _remove(folder, there)
        there, marker = {}, None
    for part in (VIDEOS, SKELETONS):
        (folder / part).mkdir(parents=True, exist_ok=True)
    names = {**dict.fromkeys(clips), **faults}
    todo = [n for n in names if not all((folder / f).exists() for f in _clip_files(n, names[n]))]
    if not (marker and marker["complete"] and not todo):
        write_marker(folder, parameters, dict.fromkeys(files))
        write_atomically(folder / README, _readme(parameters, faults).encode())
        _write_clips(folder, style, [(n, names[n]) for n in todo], workers)
        write_marker(folder, parameters, {f: (folder / f).stat().st_size for f in files})
    sides = {s: sum(side_of(n.subject) == s for n in clips) for s in ("train", "val", "test")}
    size = sum((folder / f).stat().st_size for f in files)
    return Summary(len(clips), len(faults), len(todo), size, sides)


def write_clip(folder: Path, style: Style, job: tuple[ClipId, str | None]) -> str:
    """Write both files of one clip; the fault, if any, is planted here."""
    name, fault = job
    if fault is None:
        clip = record(style, name)
        text: str | None = skeleton_text(
            clip.tracks, np.ones((clip.frames, len(clip.tracks)), bool)
        )
    else:
        clip, text = faulty_recording(style, name, fault)
    if fault != "no_video":
        path = folder / VIDEOS / f"{name}_rgb.avi"
        temporary = path.with_name(path.name + ".part")
        frames = render(style, clip)
        write_video(temporary, frames[: 2 * len(frames) // 3] if fault == "short_video" else frames)
        if fault == "broken_video":
            temporary.write_bytes(temporary.read_bytes()[:150])
        temporary.replace(path)
    if text is not None:
        write_atomically(folder / SKELETONS / f"{name}.skeleton", text.encode("ascii"))
    return str(name)


def _write_clips(
    folder: Path, style: Style, jobs: list[tuple[ClipId, str | None]], workers: int
) -> None:
    # Neighbouring clips share a room, which each process paints once.
    jobs = sorted(jobs, key=lambda job: (job[0].setup, job[0].camera, job[0]))
    write: Callable[[tuple[ClipId, str | None]], str]
    write = functools.partial(write_clip, folder, style)
    for _ in progress(_run(write, jobs, workers), len(jobs), "sample", "clip"):
        pass


def _cpus() -> int:
    """CPUs that this process may use: its affinity, and its container's quota (cgroup v2)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    words = CGROUP.read_text().split() if CGROUP.is_file() else []
    if len(words) == 2 and words[0].isdigit():
        return max(1, min(count or 1, int(words[0]) // int(words[1])))
    return count or 1


def _run(
    write: Callable[[tuple[ClipId, str | None]], str],
    jobs: list[tuple[ClipId, str | None]],
    workers: int,
) -> Iterator[str]:
    workers = min(workers or _cpus(), len(jobs))
    if workers <= 1:
        yield from map(write, jobs)
        return
    # "spawn": the caller may have threads, which a forked child would inherit half-alive.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            with _sigint_blocked():
                done = pool.map(write, jobs, chunksize=4)
            yield from done
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()  # a file appears whole or not at all
            raise


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Processes that start in this block never see Ctrl-C, which a terminal sends to all of them:
    the one that started them ends them and has something to say."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _clip_files(name: ClipId, fault: str | None) -> list[str]:
    video, skeleton = f"{VIDEOS}/{name}_rgb.avi", f"{SKELETONS}/{name}.skeleton"
    return [video] * (fault != "no_video") + [skeleton] * (fault != "no_skeleton")


def _file_names(clips: Iterable[ClipId], faults: dict[ClipId, str]) -> list[str]:
    names: dict[ClipId, str | None] = {**dict.fromkeys(clips), **faults}
    return sorted(file for name, fault in names.items() for file in _clip_files(name, fault))


def _remove(folder: Path, files: Iterable[str]) -> None:
    for file in files:
        (folder / file).unlink()


def _readme(parameters: dict[str, Any], faults: dict[ClipId, str]) -> str:
    classes = "\n".join(f"- A{number:03d} {name}" for number, name in ACTIONS.items())
    planted = "\n".join(
        f"- {name}: {fault} ({'usable' if FAULTS[fault] else 'to be rejected'})"
        for name, fault in faults.items()
    )
    values = "\n".join(f"- {key}: {value}" for key, value in parameters.items())
    return f"""# Synthetic sample in NTU-RGB+D file layout

Nothing here was filmed. `python -m pipelines.sample` drew these clips and wrote these skeletons
from a kinematic model; no file of NTU-RGB+D was used. Results on it are no results on NTU-RGB+D.
File names, fields and class numbers follow NTU-RGB+D; the movements are this project's own.

## Parameters
{values}

## Classes
{classes}

## Planted faults
{planted or "none"}
"""
