"""Sampling in time: both streams at the same instants of the clip, so that they stay aligned."""

import numpy as np

from components.shards import Clip


def window_seconds(clip: Clip) -> float:
    """The span that both streams cover, from their common start."""
    return min(clip.num_rgb_frames / clip.rgb_fps, clip.num_skeleton_frames / clip.skeleton_fps)


def instants(start: float, length: float, count: int) -> np.ndarray:
    """float64 [count]: the middles of `count` equal parts of a window, in seconds."""
    return start + (np.arange(count) + 0.5) * (length / count)


def rgb_rows(clip: Clip, times: np.ndarray) -> np.ndarray:
    """int64: for each instant the kept video frame whose true frame is nearest."""
    wanted = np.floor(times * clip.rgb_fps + 1e-6)
    kept = clip.rgb_index
    # Halfway between neighbours decides; a tie goes to the earlier frame.
    return np.searchsorted((kept[:-1] + kept[1:]) / 2, wanted, side="left")


def skeleton_rows(clip: Clip, times: np.ndarray) -> np.ndarray:
    """int64: for each instant the skeleton frame shown then; nothing is interpolated."""
    wanted = np.floor(times * clip.skeleton_fps + 1e-6).astype(np.int64)
    return np.clip(wanted, 0, clip.num_skeleton_frames - 1)
