"""Estimate the joints of every video in a folder with MediaPipe Pose, for `data.source=mediapipe`.

    python3 -m venv .venv-mediapipe
    .venv-mediapipe/bin/pip install -r deploy/mediapipe/requirements.txt
    .venv-mediapipe/bin/python deploy/mediapipe/estimate.py data/mine

Writes `NAME.pose.npy` beside each video (float32 [frames, 33, 5]: x, y in the picture as shares; x,
y, z in metres about the hips; NaN where nobody was found). Finished files are kept. The model lies
in MediaPipe's wheel; nothing is loaded from the network. It needs nothing of this project.
"""

import argparse
import os
import sys
from pathlib import Path

import av
import mediapipe
import numpy as np

VIDEOS = {".mp4", ".avi", ".mkv", ".webm", ".mov"}


def estimate(path: Path) -> np.ndarray:
    """float32 [F, 33, 5] of one video, tracked from frame to frame."""
    rows = []
    # Complexity 1 is the one whose model is in the wheel.
    with mediapipe.solutions.pose.Pose(model_complexity=1) as pose, av.open(str(path)) as video:
        for frame in video.decode(video=0):
            seen = pose.process(frame.to_ndarray(format="rgb24"))
            row = np.full((33, 5), np.nan, np.float32)
            if seen.pose_landmarks is not None and seen.pose_world_landmarks is not None:
                row[:, :2] = [(p.x, p.y) for p in seen.pose_landmarks.landmark]
                row[:, 2:] = [(p.x, p.y, p.z) for p in seen.pose_world_landmarks.landmark]
            rows.append(row)
    return np.stack(rows) if rows else np.empty((0, 33, 5), np.float32)


def main() -> int:
    """Estimate what is not there yet; the number of videos that failed, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    videos = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEOS)
    if not videos:
        print(f"{folder} holds no video", file=sys.stderr)
        return 1
    failed = 0
    for path in videos:
        target = path.with_name(path.stem + ".pose.npy")
        if target.exists():
            continue
        try:
            marks = estimate(path)
        except av.error.FFmpegError as error:
            print(f"{path}: {error}", file=sys.stderr)
            failed = 1
            continue
        temporary = target.with_name(f".{target.name}.tmp")
        with temporary.open("wb") as file:
            np.save(file, marks, allow_pickle=False)
        os.replace(temporary, target)
        found = int(np.isfinite(marks).all(axis=(1, 2)).sum())
        print(f"{path}: a person in {found} of {len(marks)} frames", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
