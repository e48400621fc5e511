"""Every way to decode a list of videos that ingest could take, as far as its package imports."""

import importlib
from collections.abc import Callable

import av


def full(paths: list[str]) -> int:
    """Every frame of these videos, and nothing else."""
    return sum(_decode(path, {}) for path in paths)


def half(paths: list[str]) -> int:
    """Every frame at 1/2 of its size."""
    return sum(_decode(path, {"lowres": "1"}) for path in paths)


def quarter(paths: list[str]) -> int:
    """Every frame at 1/4 of its size."""
    return sum(_decode(path, {"lowres": "2"}) for path in paths)


def key_frames(paths: list[str]) -> int:
    """Key frames alone (`skip_frame=nokey`): what is left when nothing between them is decoded."""
    return sum(_decode(path, {"skip_frame": "nokey"}) for path in paths)


def _decode(path: str, options: dict[str, str]) -> int:
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = options
        stream.codec_context.thread_count, stream.thread_type = 1, "NONE"
        return sum(1 for _ in container.decode(stream))


def with_decord(paths: list[str]) -> int:
    """decord2, one frame after the other."""
    import decord

    return sum(1 for path in paths for _ in decord.VideoReader(path, num_threads=1))


def with_video_reader(paths: list[str]) -> int:
    """video-reader-rs, one frame after the other."""
    import video_reader

    return sum(len(video_reader.PyVideoReader(path, threads=1).decode()) for path in paths)


def with_torchcodec(paths: list[str]) -> int:
    """torchcodec, one frame after the other."""
    from torchcodec.decoders import VideoDecoder

    return sum(
        1
        for path in paths
        for _ in VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="approximate")
    )


PEERS = {"decord": with_decord, "video_reader": with_video_reader, "torchcodec": with_torchcodec}


def peers() -> tuple[dict[str, Callable[[list[str]], int]], dict[str, str]]:
    """The peers that import here, and why the others do not."""
    there: dict[str, Callable[[list[str]], int]] = {}
    away: dict[str, str] = {}
    for name, decode in PEERS.items():
        try:
            importlib.import_module(f"{name}.decoders" if name == "torchcodec" else name)
        except (ImportError, OSError, RuntimeError) as error:
            away[name] = str(error).splitlines()[0][:200]
        else:
            there[name] = decode
    return there, away
