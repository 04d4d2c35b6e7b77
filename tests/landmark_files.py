"""Made-up faces, written as landmark datasets write them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from tests.raw_records import HEIGHT, WIDTH, write_image


class MadeFace(NamedTuple):
    """`points_N2` from 0, in eighths of a pixel, so that adding 1 and taking it off leaves them as they are."""

    name: str
    points_N2: np.ndarray
    occluded_N: np.ndarray


def made_faces(count: int, num_keypoints: int, *, seed: int = 0) -> list[MadeFace]:
    rng = np.random.default_rng(seed)
    return [
        MadeFace(
            f"{i // 2:03d}_{i}.png",
            rng.integers([32, 32], [8 * (WIDTH - 4), 8 * (HEIGHT - 4)], (num_keypoints, 2)) / 8,
            rng.integers(0, 2, num_keypoints),
        )
        for i in range(count)
    ]


def write_images(folder: Path, faces: Sequence[MadeFace]) -> Path:
    """Another picture for every name."""
    for face in faces:
        write_image(folder / face.name, seed=zlib.crc32(face.name.encode()))
    return folder


def pts_text(points_N2: np.ndarray, occluded_N: np.ndarray | None = None, *, origin: float = 1) -> str:
    rows = [f"{x + origin:.3f} {y + origin:.3f}" for x, y in points_N2]
    if occluded_N is not None:
        rows = [f"{row} {flag}" for row, flag in zip(rows, occluded_N, strict=True)]
    return "\n".join(["version: 1", f"n_points:  {len(rows)}", "{", *rows, "}", ""])


def write_pts(folder: Path, faces: Sequence[MadeFace], *, flags: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for face in faces:
        text = pts_text(face.points_N2, face.occluded_N if flags else None)
        (folder / face.name).with_suffix(".pts").write_text(text)
    return folder


def wflw_line(face: MadeFace, *, occluded: int = 0, corners: str = "4 5 44 45") -> str:
    numbers = " ".join(f"{value:.6f}" for value in face.points_N2.ravel())
    return f"{numbers} {corners} 0 1 0 0 {occluded} 1 {face.name}"


def coco_content(faces: Sequence[MadeFace], *, field: str = "keypoints", box: str = "bbox") -> dict[str, Any]:
    """Two faces of a picture share a picture's id only if they share its name."""
    names = sorted({face.name for face in faces})
    images = [{"id": 100 + i, "file_name": n, "width": WIDTH, "height": HEIGHT} for i, n in enumerate(names)]
    annotations = [
        {
            "id": 7 + i,
            "image_id": 100 + names.index(face.name),
            field: [v for (x, y), o in zip(face.points_N2, face.occluded_N, strict=True) for v in (x, y, 2 - int(o))],
            box: [4, 5, 40, 40.5],
        }
        for i, face in enumerate(faces)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "face"}]}


def write_coco(path: Path, faces: Sequence[MadeFace], **settings: str) -> Path:
    path.write_text(json.dumps(coco_content(faces, **settings)))
    return path


def write_cofw(path: Path, faces: Sequence[MadeFace], *, suffix: str = "Tr") -> Path:
    """As MATLAB's -v7.3 saves cells and matrices: references, and the last dimension first. Pictures are noise."""
    rows = [np.concatenate([*(face.points_N2 + 1).T, face.occluded_N]) for face in faces]
    with h5py.File(path, "w") as file:
        cells = file.create_dataset(f"Is{suffix}", (1, len(faces)), h5py.ref_dtype)
        for i in range(len(faces)):
            picture_HWC = np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            stored = picture_HWC[..., 0].T if i == 1 else picture_HWC.T  # COFW has some gray pictures
            cells[0, i] = file.create_dataset(f"#refs#/{i}", data=stored).ref
        file[f"phis{suffix}"] = np.array(rows).T
        file[f"bboxes{suffix}"] = np.tile([5.0, 6.0, 40.0, 40.5], (len(faces), 1)).T
    return path
