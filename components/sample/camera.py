"""Where the three cameras of a setup stand, and how they see: world -> camera space -> pixels."""

from dataclasses import dataclass

import numpy as np

from components.sample.body import Floats
from components.sample.plan import random_state

COLOUR_SIZE = (1920, 1080)
DEPTH_SIZE = (512, 424)
COLOUR_FOCUS = 1081.37  # pixels, nominal for Kinect v2's 1920x1080 colour camera
DEPTH_FOCUS = 365.5
BASELINE = 0.052  # metres between the two lenses, along x


@dataclass(frozen=True)
class Camera:
    """A pose in the world: `origin` [3] metres, `rotation` rows = camera x, y, z in the world."""

    origin: Floats
    rotation: Floats

    def see(self, world: Floats) -> Floats:
        """World points [..., 3] in camera space: y up, z away from the sensor, metres."""
        return (world - self.origin) @ self.rotation.T


def place_camera(seed: int, setup: int, camera: int) -> Camera:
    """Cameras at 0, +45 and -45 degrees; each setup has its own height and distance, as in NTU."""
    rng = random_state(seed, "setup", setup)
    distance, height = rng.uniform(2.6, 3.6), rng.uniform(0.9, 1.6)
    angle = np.radians((0.0, 45.0, -45.0)[camera - 1] + rng.normal(0, 3))
    origin = np.array([np.sin(angle) * distance, height, -np.cos(angle) * distance])
    target = np.array([rng.normal(0, 0.1), rng.uniform(0.8, 1.0), 0.0])
    depth = (target - origin) / np.linalg.norm(target - origin)
    # x grows to the sensor's left: Kinect's camera space is right-handed and its image mirrored.
    across = np.cross(np.array([0.0, 1.0, 0.0]), depth)
    across /= np.linalg.norm(across)
    return Camera(origin, np.stack([across, np.cross(depth, across), depth]))


def colour_pixels(points: Floats) -> Floats:
    """Camera-space points [..., 3] -> colorX, colorY [..., 2] in 1920x1080."""
    z = np.maximum(points[..., 2], 0.1)
    x = COLOUR_SIZE[0] / 2 - 0.5 + COLOUR_FOCUS * (points[..., 0] + BASELINE) / z
    return np.stack([x, COLOUR_SIZE[1] / 2 - 0.5 - COLOUR_FOCUS * points[..., 1] / z], -1)


def depth_pixels(points: Floats) -> Floats:
    """Camera-space points [..., 3] -> depthX, depthY [..., 2] in 512x424."""
    z = np.maximum(points[..., 2], 0.1)
    x = DEPTH_SIZE[0] / 2 - 0.5 + DEPTH_FOCUS * points[..., 0] / z
    return np.stack([x, DEPTH_SIZE[1] / 2 - 0.5 - DEPTH_FOCUS * points[..., 1] / z], -1)
