"""The data sets that `data.source` may name."""

from components.errors import UserError
from components.sources import azure_kinect, imigue, mediapipe_pose, ntu, pyskl, utd_mhad
from components.sources.base import Source

SOURCES: dict[str, Source] = {
    ntu.SOURCE.name: ntu.SOURCE,
    utd_mhad.SOURCE.name: utd_mhad.SOURCE,
    utd_mhad.DEPTH_SOURCE.name: utd_mhad.DEPTH_SOURCE,
    imigue.SOURCE.name: imigue.SOURCE,
    pyskl.SOURCE.name: pyskl.SOURCE,
    azure_kinect.SOURCE.name: azure_kinect.SOURCE,
    mediapipe_pose.SOURCE.name: mediapipe_pose.SOURCE,
}


def get_source(name: str) -> Source:
    """The adapter of that name; ValueError with the known names."""
    if name not in SOURCES:
        raise UserError(f"no data source {name!r}; there are {', '.join(sorted(SOURCES))}")
    return SOURCES[name]
