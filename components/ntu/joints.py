"""The 25 joints of Kinect v2, which every source is mapped to.

Order: Kinect SDK, JointType (documentation dn758663).
"""

JOINT_NAMES = (
    *("SpineBase", "SpineMid", "Neck", "Head", "ShoulderL", "ElbowL", "WristL", "HandL"),
    *("ShoulderR", "ElbowR", "WristR", "HandR", "HipL", "KneeL", "AnkleL", "FootL", "HipR"),
    *("KneeR", "AnkleR", "FootR", "SpineShoulder", "HandTipL", "ThumbL", "HandTipR", "ThumbR"),
)
JOINTS = len(JOINT_NAMES)
PEOPLE = 2


def mirror_order() -> list[int]:
    """For each joint the one that takes its place in a mirror: left and right swapped."""
    swap = {"L": "R", "R": "L"}
    place = {name: i for i, name in enumerate(JOINT_NAMES)}
    return [place.get(name[:-1] + swap.get(name[-1], name[-1]), place[name]) for name in place]
