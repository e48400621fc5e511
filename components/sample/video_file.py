"""Writes frames as NTU's kind of video: AVI, MPEG-4 Part 2, 30 frames a second, no B-frames."""

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags


def write_video(path: Path, frames: Iterable[np.ndarray]) -> None:
    """Encode uint8 [H, W, 3] frames; the same frames give the same bytes.

    One encoder thread and the bit-exact flags: no time stamp, no version, no race in the file.
    """
    with av.open(str(path), "w", format="avi", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=30)
        context = stream.codec_context
        for i, image in enumerate(frames):
            if i == 0:
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "yuv420p"
                context.codec_tag = "DIVX"
                context.gop_size = 12
                context.max_b_frames = 0
                context.thread_count = 1
                context.flags |= Flags.bitexact
                context.qmin = context.qmax = 4
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
