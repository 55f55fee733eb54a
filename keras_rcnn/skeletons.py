"""What an object's keypoints are called, which of them a line joins, and which are each other's mirror image."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any, Self

# OKS falls off with a keypoint's distance over the object's size times this: the mean of COCO's own
SIGMA = 0.067


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """The keypoints of a class of objects, in their order.

    Args:
        names: K words.
        bones: pairs of places in `names`, from 0, that a picture joins by a line.
        sigmas: K floats of the OKS metric: how far apart people put a keypoint, over the object's size. None: COCO's
            own where the names are COCO's, else the mean of these for each.

    Raises:
        ValueError: for places or numbers that do not fit the names.

    Example:

    >>> Skeleton(("nose", "left_eye", "right_eye"), bones=((0, 1), (0, 2))).mirrored
    (0, 2, 1)
    """

    names: tuple[str, ...]
    bones: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names) or not self.names:
            raise ValueError(f"A skeleton has keypoints with names of their own, not {self.names}.")
        for bone in self.bones:
            if len(bone) != 2 or not all(0 <= place < len(self.names) for place in bone):
                raise ValueError(f"A skeleton of {len(self.names)} keypoints has no bone {bone}.")
        if self.sigmas is not None and (len(self.sigmas) != len(self.names) or min(self.sigmas) <= 0):
            raise ValueError(f"{len(self.names)} keypoints have as many sigmas over 0, not {self.sigmas}.")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, names: Iterable[Any] | int | None, bones: Iterable[Iterable[int]] | None = None) -> Self:
        """A skeleton of what a file or a config has: lists for tuples, or just the number of keypoints.

        Seventeen keypoints without names are COCO's; others are called by their numbers.
        """
        if isinstance(names, int):
            names = COCO_SKELETON.names if names == len(COCO_SKELETON) else [str(place) for place in range(names)]
        names = tuple(str(name) for name in names or ())
        if bones is None:
            return cls(names, COCO_SKELETON.bones if names == COCO_SKELETON.names else ())
        return cls(names, tuple(tuple(int(place) for place in bone) for bone in bones))  # pyright: ignore[reportArgumentType]

    @property
    def mirrored(self) -> tuple[int, ...]:
        """For each keypoint the place of the one that it becomes in a mirror: `left_eye` becomes `right_eye`."""
        places = {name.lower(): place for place, name in enumerate(self.names)}
        return tuple(places.get(_other_side(name.lower()), place) for place, name in enumerate(self.names))

    @property
    def oks_sigmas(self) -> tuple[float, ...]:
        """The sigmas that the metric takes."""
        if self.sigmas is not None:
            return self.sigmas
        return COCO_SIGMAS if self.names == COCO_SKELETON.names else (SIGMA,) * len(self.names)


def _other_side(name: str) -> str:
    return re.sub("left|right", lambda side: "right" if side[0] == "left" else "left", name)


def _bones(pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """COCO's `skeleton`, which counts from 1."""
    return tuple((start - 1, end - 1) for start, end in pairs)


COCO_SKELETON = Skeleton(
    (
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    _bones(
        (
            (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10),
            (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
        )
    ),
)  # fmt: skip
COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
    0.089,
)  # fmt: skip
