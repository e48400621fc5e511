"""The box of a decoded frame as a small square of RGB, from frames of full or of reduced size."""

from fractions import Fraction

import av
import numpy as np
from av.filter import Graph
from av.filter.context import FilterContext

from components.ntu.crop import Box, placement

_ONE = 1 << 14  # an area of 1, as the whole numbers that weights are


class Scaler:
    """Cut a box out of frames and scale it to size x size RGB; black where the box has no picture.

    The filter graph cuts before it converts, so only the people's pixels are touched.
    """

    def __init__(self, box: Box, size: int) -> None:
        self.box = box
        self.size = size
        self._graphs: dict[tuple[int, int, str], tuple[Graph, tuple[int, ...]]] = {}

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 [size, size, 3]."""
        key = (frame.width, frame.height, frame.format.name)
        if key not in self._graphs:
            self._graphs[key] = self._build(*key)
        graph, (left, top, width, height) = self._graphs[key]
        canvas = np.zeros((self.size, self.size, 3), np.uint8)
        if width and height:
            graph.push(frame)
            picture = graph.pull().to_ndarray()
            canvas[top : top + height, left : left + width] = picture
        return canvas

    def _build(self, width: int, height: int, pixel_format: str) -> tuple[Graph, tuple[int, ...]]:
        part = placement(self.box, width, height, self.size)
        graph = Graph()
        graph.threads = 1  # the tasks of the stage are what runs in parallel
        if part.width and part.height:
            cut = f"{part.x1 - part.x0}:{part.y1 - part.y0}:{part.x0}:{part.y0}:exact=1"
            source, crop = _buffer(graph, width, height, pixel_format), graph.add("crop", cut)
            source.link_to(crop)
            _scale_to_rgb(graph, crop, part.width, part.height)
        return graph, (part.left, part.top, part.width, part.height)


class ReducedScaler:
    """What `Scaler` gives, from frames decoded at 1 / 2**lowres of their size (yuv420p).

    A box of whole pixels has fractions of reduced ones at its edges, which a filter graph cannot
    cut; so each pixel of the result is the mean of the area it covers, computed here. Weights are
    whole numbers, so all sums are exact: the same bytes on any CPU.
    """

    def __init__(self, box: Box, size: int, width: int, height: int, lowres: int) -> None:
        self.size = size
        self.part = part = placement(box, width, height, size)
        self._weights: list[tuple[slice, np.ndarray, slice, np.ndarray]] = []
        if not (part.width and part.height):
            return
        for chroma in (0, 1, 1):
            step = 2 ** (lowres + chroma)
            rows, down = _coverage(part.y0, part.y1, part.height, height, step, chroma)
            columns, across = _coverage(part.x0, part.x1, part.width, width, step, chroma)
            self._weights.append((rows, down.astype(np.float32), columns, across.T))

    def planes(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 [3, height, width]: luma and chroma of the part of the picture in the box."""
        out = np.empty((3, self.part.height, self.part.width), np.uint8)
        for plane, small, weights in zip(frame.planes, out, self._weights, strict=False):
            rows, down, columns, across = weights
            pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(
                plane.height, plane.line_size
            )
            # First sums stay below 2**22, which float32 holds exactly, second ones below 2**36.
            narrow = (down @ pixels[rows, columns].astype(np.float32)).astype(np.float64)
            small[:] = np.floor(narrow @ across / _ONE**2 + 0.5)
        return out

    def to_rgb(self, planes: np.ndarray, like: av.VideoFrame) -> np.ndarray:
        """uint8 [N, size, size, 3] of N frames' planes [N, 3, height, width]; colours as `like`'s.

        All frames are converted as one tall picture.
        """
        left, top, width, height = self.part[4:]
        canvas = np.zeros((len(planes), self.size, self.size, 3), np.uint8)
        if width and height:
            stacked = np.ascontiguousarray(planes.swapaxes(0, 1)).reshape(3, -1, width)
            tall = av.VideoFrame.from_ndarray(stacked, format="yuv444p")
            tall.colorspace, tall.color_range = like.colorspace, like.color_range
            graph = Graph()
            graph.threads = 1
            source = _buffer(graph, tall.width, tall.height, "yuv444p")
            _scale_to_rgb(graph, source, tall.width, tall.height)
            graph.push(tall)
            rgb = graph.pull().to_ndarray().reshape(len(planes), height, width, 3)
            canvas[:, top : top + height, left : left + width] = rgb
        return canvas


def _coverage(
    start: int, stop: int, count: int, limit: int, step: int, chroma: int
) -> tuple[slice, np.ndarray]:
    """Which reduced pixels [start, stop) touches, and float64 [count, touched] what share of each
    of `count` equal parts each of them covers, in units of 1 / _ONE.

    A reduced pixel is `step` pixels wide. `chroma` = 1: the box begins and ends at a pair of
    pixels, as the crop filter cuts chroma.
    """
    if chroma:
        start, stop = start // 2 * 2, start // 2 * 2 + (stop - start + 1) // 2 * 2
    first, last = start // step, min(-(-stop // step), -(-limit // step))
    edges = start + np.arange(count + 1) * ((stop - start) / count)
    pixels = np.arange(first, last) * float(step)
    ends = pixels + step
    ends[-1] = max(ends[-1], float(stop))  # the last pixel stands for what lies beyond it
    shared = np.minimum(edges[1:, None], ends) - np.maximum(edges[:-1, None], pixels)
    share = np.clip(shared, 0.0, None) * count / (stop - start)
    weights = np.rint(share * _ONE)
    weights[np.arange(count), weights.argmax(axis=1)] += _ONE - weights.sum(axis=1)
    return slice(first, last), weights


def _buffer(graph: Graph, width: int, height: int, pixel_format: str) -> FilterContext:
    return graph.add_buffer(
        width=width,
        height=height,
        format=av.VideoFormat(pixel_format),
        time_base=Fraction(1, 30),
    )


def _scale_to_rgb(graph: Graph, source: FilterContext, width: int, height: int) -> None:
    # bitexact + accurate_rnd: the same bytes whatever vector instructions the CPU has
    flags = "area+accurate_rnd+bitexact+full_chroma_int"
    resize = graph.add("scale", f"{width}:{height}:flags={flags}")
    as_rgb = graph.add("format", "rgb24")
    sink = graph.add("buffersink")
    for first, then in ((source, resize), (resize, as_rgb), (as_rgb, sink)):
        first.link_to(then)
    graph.configure()
