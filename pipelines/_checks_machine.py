"""What `amr doctor` looks at on the machine: Python, packages, torch, GPUs, video, disk space."""

import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines._findings import OK, PROBLEM, WARN, Context, Finding

INSTALL = "pip install -c constraints.txt -e ."
SHOWN = 3  # names of a list; the rest is counted
DISK_WARN, DISK_LEAST = 10e9, 1e9  # bytes: a checkpoint of the large nets has some 200 MB


def python(context: Context) -> Iterator[Finding]:
    """Whether the interpreter is one that the project is written for."""
    wanted = _project(context)["requires-python"]
    least = tuple(int(part) for part in re.findall(r"\d+", wanted))
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[: len(least)] < least:
        fix = f"make a virtual environment with Python {wanted}: `make test` or `make demo` does"
        yield Finding("Python", PROBLEM, f"{found}; the project needs {wanted}", fix)
    else:
        yield Finding("Python", OK, found)


def packages(context: Context) -> Iterator[Finding]:
    """Direct dependencies must be there; all versions should be those the tests run on."""
    direct = {_plain(spec): spec for spec in _project(context)["dependencies"]}
    tested = dict(
        line.strip().split("==", 1)
        for line in (context.root / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    tested = {_plain(name): version for name, version in tested.items()}
    here = {_plain(d.metadata["Name"]): d.version for d in metadata.distributions()}
    missing = sorted(name for name in direct if name not in here)
    if missing:
        yield Finding("packages", PROBLEM, f"not installed: {_some(missing)}", INSTALL)
    # "2.13.0+cpu" is a build of 2.13.0.
    other = sorted(
        (name not in direct, f"{name} {here[name]} (tested: {version})")
        for name, version in tested.items()
        if name in here and here[name].partition("+")[0] != version
    )
    if other:
        text = f"{len(other)} differ from constraints.txt: {_some([t for _, t in other])}"
        yield Finding("packages", WARN, text, INSTALL)
    if not missing and not other:
        count = len(tested.keys() & here.keys())
        yield Finding("packages", OK, f"all {count} installed are those of constraints.txt")


def torch_and_gpus(context: Context) -> Iterator[Finding]:
    """torch, the GPUs it sees, and whether the settings fit both GPUs and CPUs."""
    import torch

    from components.cpus import usable_cpus

    cpus = usable_cpus()
    gpus = [
        f"{p.name} ({p.total_memory / 1e9:.0f} GB)"
        for p in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ]
    found = f"{torch.__version__}, {', '.join(gpus) or 'no GPU'}, {cpus} CPUs"
    section = context.config.ray
    cluster = section.address
    if not gpus and Path("/dev/nvidiactl").exists():
        fix = f"install the CUDA build: pip install torch=={torch.__version__.partition('+')[0]}"
        yield Finding("torch", WARN, f"{found}, though the machine has an NVIDIA driver", fix)
        return
    for kind, each, have in (
        ("gpus", section.gpus_per_worker, len(gpus)),
        ("cpus", section.cpus_per_worker, cpus),
    ):
        if section.workers * each > have and not cluster:
            wants = f"{section.workers} training workers with {each:g} {kind} each"
            fix = f"set ray.workers or ray.{kind}_per_worker lower, or ray.address to a cluster"
            yield Finding("torch", PROBLEM, f"{found}; settings ask for {wants}", fix)
            return
    if gpus and not section.gpus_per_worker:
        fix = "set ray.gpus_per_worker=1, ray.workers to the number of GPUs (or a recipe for GPUs)"
        yield Finding("torch", WARN, f"{found}; training is set to use CPUs alone", fix)
        return
    yield Finding("torch", OK, found)


def video(context: Context) -> Iterator[Finding]:
    """FFmpeg inside PyAV: the codecs of the data sets, and a clip written and read in memory."""
    import io

    import av
    import numpy as np

    missing = {"mpeg4", "h264"} - av.codecs_available
    library = ".".join(map(str, av.library_versions["libavcodec"]))
    found = f"PyAV {av.__version__} with libavcodec {library}"
    if missing:
        text = f"{found} lacks the codecs {', '.join(sorted(missing))}"
        yield Finding("video", PROBLEM, text, "install PyAV from its wheel: pip install -U av")
        return
    held = io.BytesIO()
    with av.open(held, "w", format="avi") as out:
        stream: Any = out.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        picture = np.zeros((32, 32, 3), np.uint8)
        out.mux([*stream.encode(av.VideoFrame.from_ndarray(picture)), *stream.encode()])
    held.seek(0)
    with av.open(held, "r") as container:
        count = len(list(container.decode(video=0)))
    if count != 1:
        text = f"{found} read {count} frames of a video of one"
        yield Finding("video", PROBLEM, text, "install PyAV from its wheel: pip install -U av")
        return
    yield Finding("video", OK, f"{found} writes and reads video")


def disk(context: Context) -> Iterator[Finding]:
    """Room where results go."""
    from components.address import local_path

    folder = local_path(context.config.paths.artifacts, context.root)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free for {context.config.paths.artifacts}"
    fix = "make room, or set paths.artifacts to a larger disk"
    if free < DISK_WARN:
        yield Finding("disk", PROBLEM if free < DISK_LEAST else WARN, found, fix)
    else:
        yield Finding("disk", OK, found)


def _project(context: Context) -> dict[str, Any]:
    body = tomllib.loads((context.root / "pyproject.toml").read_text())
    project: dict[str, Any] = body["project"]
    return project


def _plain(spec: str) -> str:
    """The name of a package as indexes compare it."""
    name = re.match(r"[\w.-]+", spec)
    assert name is not None, spec
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
