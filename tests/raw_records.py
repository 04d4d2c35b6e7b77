"""Small images on disk and raw records that annotate them, for tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from schemas.raw import RawRecord
from schemas.sloth import face_to_sloth, image_entry

NUM_KEYPOINTS = 5
WIDTH, HEIGHT = 64, 48


def write_image(path: Path, *, seed: int, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """Smooth noise, another for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, (width, height)))
    return path


def some_points(seed: int) -> np.ndarray:
    low, high = (12.0, 10.0), (52.0, 38.0)
    return np.random.default_rng(seed).uniform(low, high, (NUM_KEYPOINTS, 2)).astype(np.float32)


def some_flags(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, NUM_KEYPOINTS).astype(np.int8)


def sloth_record(
    folder: Path, number: int, *, subject: str | None = None, set_id: str = "all", source: str = "s", **changes
) -> RawRecord:
    """Record `number`: its own image (`images/0007.png`), keypoints and flags; subject `d/<number // 2>`."""
    name = f"images/{number:04d}.png"
    image = folder / name
    if not image.exists():
        write_image(image, seed=number)
    faces = [face_to_sloth(some_points(number), some_flags(number))]
    fields = {
        "format": "sloth",
        "source": source,
        "set_id": set_id,
        "key": f"gt/{set_id}.json#{number}",
        "payload": image_entry(name, faces),
        "image": str(image),
        "flags_known": True,
        "subject": subject or f"d/{number // 2:03d}",
    }
    return RawRecord(**{**fields, **changes})


def sloth_records(folder: Path, count: int, **changes) -> list[RawRecord]:
    return [sloth_record(folder, number, **changes) for number in range(count)]
