"""One subject's sitting: who it is, and every photograph of the protocol, drawn from a seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from model.faces.capture import Capture, sample_captures
from model.faces.expression import EXPRESSIONS, Expression
from model.faces.identity import Identity, sample_identity
from model.faces.photograph import OCCLUDERS, Photograph, photograph
from model.faces.scene import Light, Pose, Scene, keypoints
from model.faces.view import view
from schemas.geometry import tight_square
from schemas.layouts import FACE_SIZES

FRAME_SIZE = 192
"""Width and height of a frame in pixels."""

_MARGIN = 4
_MASK_SHARE, _SUNGLASSES_SHARE, _OCCLUDER_SHARE = 0.04, 0.04, 0.16


def seeded(seed: int, *words: str) -> np.random.Generator:
    """A generator that depends on `seed` and `words` only."""
    digest = hashlib.sha256("/".join([str(seed), *words]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


@dataclass(frozen=True)
class Sitting:
    """A subject under a seed; the same subject has the same face in every photograph."""

    subject: str
    seed: int

    @property
    def identity(self) -> Identity:
        return sample_identity(seeded(self.seed, self.subject, "identity"))

    def captures(self, count: int) -> list[Capture]:
        """Which `count` photographs are taken, sorted.

        Raises:
            ValueError: there are not that many in the protocol.
        """
        return sample_captures(self.subject, count, seeded(self.seed, self.subject, "captures"))

    def expression(self, capture: Capture) -> Expression:
        """The face made in a recording: all its photographs are taken at once, so they share it."""
        rng = seeded(self.seed, self.subject, capture.session, capture.recording)
        act = EXPRESSIONS[capture.expression].scaled(float(rng.uniform(0.7, 1.1)))
        gaze_x, gaze_y = np.clip(rng.normal(0.0, (0.14, 0.07)), (-0.3, -0.15), (0.3, 0.15))
        return replace(act, gaze_x=float(gaze_x), gaze_y=float(gaze_y))

    def scene(self, capture: Capture) -> Scene:
        """What stands before the camera, moved where needed so that the face's square lies in the frame."""
        rng = seeded(self.seed, capture.file_name, "scene")
        scene = Scene(
            identity=self.identity,
            expression=self.expression(capture),
            pose=_pose(capture, rng),
            light=_light(capture, rng),
            worn=_worn(rng),
        )
        return framed(scene, FRAME_SIZE)

    def photograph(self, capture: Capture, *, channels: int) -> Photograph:
        scene = self.scene(capture)
        rng = seeded(self.seed, capture.file_name, "photograph")
        seen = view(scene, frame_width=FRAME_SIZE, frame_height=FRAME_SIZE, channels=channels)
        occluder = str(rng.choice(OCCLUDERS)) if not scene.worn and rng.random() < _OCCLUDER_SHARE else None
        who = scene.identity
        colour = {"hand": who.skin, "strand": who.hair}.get(occluder or "", tuple(rng.uniform(0.02, 0.6, 3)))
        return photograph(seen, occluder=occluder, colour=colour, rng=rng)


def framed(scene: Scene, frame_size: int) -> Scene:
    """The scene moved, and made smaller if it must be, so that the face's square is in the frame in every layout."""
    room = frame_size - 1 - 2 * _MARGIN
    low, high = _extent(scene)
    if (side := float((high - low).max())) > room:
        scene = replace(scene, pose=replace(scene.pose, scale=scene.pose.scale * (room - 3) / side))
        low, high = _extent(scene)
    shift = np.maximum(_MARGIN - low, 0) + np.minimum(frame_size - 1 - _MARGIN - high, 0)
    x, y = (np.array(scene.pose.centre) + shift).tolist()
    return replace(scene, pose=replace(scene.pose, centre=(x, y)))


def _extent(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Top left and bottom right of the squares of all layouts: without ears, a profile's square lies elsewhere."""
    points_N2 = keypoints(scene)
    boxes = np.array([tight_square(points_N2[:number]) for number in FACE_SIZES])
    return boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)


def _pose(capture: Capture, rng: np.random.Generator) -> Pose:
    centre = np.array([0.5, 0.47]) * FRAME_SIZE + rng.uniform(-9, 9, 2)
    return Pose(
        yaw=capture.yaw + float(rng.uniform(-4, 4)),
        pitch=float(np.clip(rng.normal(0, 4), -9, 9)),
        roll=float(np.clip(rng.normal(0, 3), -8, 8)),
        centre=(float(centre[0]), float(centre[1])),
        scale=float(rng.uniform(5.3, 6.9)) * FRAME_SIZE / 192,
    )


def _light(capture: Capture, rng: np.random.Generator) -> Light:
    if capture.flash is None:
        return Light(azimuth=0.0, elevation=80.0, flash=0.15, room=float(rng.uniform(0.75, 1.05)))
    azimuth, elevation = capture.flash
    return Light(azimuth, elevation, flash=float(rng.uniform(0.65, 1.05)), room=float(rng.uniform(0.3, 0.65)))


def _worn(rng: np.random.Generator) -> tuple[str, ...]:
    draw = rng.random()
    if draw < _MASK_SHARE:
        return ("mask",)
    return ("sunglasses",) if draw < _MASK_SHARE + _SUNGLASSES_SHARE else ()
