"""A set of made-up frames and annotations to convert, kept in a folder: what is there is not made again.

Frames are 1280x800 PNG of about 0.5 MB: a shaded ground under camera noise, `BASES` of them encoded, the others
copies that differ in a text chunk, so that each is a file of its own to read and hash. A face is 80 points on an
ellipse.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.config import DatasetConvertSpec
from schemas.records import Face, Flag, Split, faces_to_table
from schemas.sloth import face_to_sloth, image_entry
from schemas.storage import sha256_file, write_bytes
from tasks.snapshot import FACES, ROW_GROUP, Snapshot

WIDTH, HEIGHT, NUM_KEYPOINTS = 1280, 800, 80
BASES = 24
_AFTER_HEADER = 33  # bytes of a PNG's signature and IHDR
_ENTRIES_A_PIECE = 1000
_AT_A_TIME = 10_000


def frame_name(number: int) -> str:
    return f"frames/{number // 1000:03d}/{number:06d}.png"


def make_frames(folder: Path, frames: int) -> list[str]:
    """Names of the frames below `folder`; those that are missing are made."""
    names = [frame_name(number) for number in range(frames)]
    missing = [number for number, name in enumerate(names) if not (folder / name).is_file()]
    bases = [_encoded(base) for base in range(BASES)] if missing else []
    for number in missing:
        path = folder / names[number]
        path.parent.mkdir(parents=True, exist_ok=True)
        base, text = bases[number % BASES], b"tEXtframe\0%06d" % number
        chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
        path.write_bytes(base[:_AFTER_HEADER] + chunk + base[_AFTER_HEADER:])
    return names


def make_set(folder: Path, set_id: str, frames: list[str], faces: int) -> None:
    """`<folder>/gt/<set_id>/gt.json`: as many faces, one an entry, on the frames in turn."""
    path = folder / "gt" / set_id / "gt.json"
    if path.is_file():
        return
    pieces = []
    for start in range(0, faces, _ENTRIES_A_PIECE):
        numbers = range(start, min(faces, start + _ENTRIES_A_PIECE))
        entries = [_entry(frames[number % len(frames)], number) for number in numbers]
        pieces.append(json.dumps(entries)[1:-1])
    write_bytes(path, f"[{', '.join(pieces)}]".encode())


def spec_of(folder: Path, set_id: str, *, embed: bool, save: str) -> DatasetConvertSpec:
    return DatasetConvertSpec(
        sets=[set_id],
        gt_root_path=str(folder),
        gt_path="gt",
        image_root_path=str(folder),
        save_root_path=str(folder),
        save_path=save,
        tfrecord_folder="FpeTfRecords",
        tfrecord_name="data.tfrecords",
        num_keypoints=NUM_KEYPOINTS,
        embed_crops=embed,
    )


def make_snapshot(folder: Path, frames: list[str], faces: int, *, changed: bool) -> Snapshot:
    """The table of a snapshot of as many faces on the frames in turn; with `changed`, a flag of one face differs."""
    directory = folder / f"snapshot-{len(frames)}-{faces}{'-changed' if changed else ''}"
    if not (directory / FACES).is_file():
        directory.mkdir(parents=True, exist_ok=True)
        hashes = [sha256_file(folder / name) for name in frames]
        parts = [
            _rows(folder, frames, hashes, range(start, min(faces, start + _AT_A_TIME)), changed)
            for start in range(0, faces, _AT_A_TIME)
        ]
        table = pa.concat_tables(parts).sort_by("content_hash")
        pq.write_table(table, directory / FACES, compression="zstd", row_group_size=ROW_GROUP)
    return Snapshot(("b" if changed else "a") * 64, directory, NUM_KEYPOINTS, frozenset({"bench/0"}))


def _encoded(base: int) -> bytes:
    rng = np.random.default_rng(base)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    light = 40 + columns / 12 + rows / 16 + 25 * np.sin(columns / 90 + base)
    noise = rng.normal(0, 0.6, (HEIGHT, WIDTH))  # sized so that a file has about 0.5 MB
    image = ((light + noise)[..., None] + 8 * np.arange(3)).clip(0, 255).astype(np.uint8)
    _, png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    return png.tobytes()


def _points(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    angles = np.linspace(0, 2 * np.pi, NUM_KEYPOINTS, endpoint=False)
    radius = rng.uniform(90, 150) * np.stack([np.cos(angles), 1.2 * np.sin(angles)], axis=1)
    centre = rng.uniform((200, 200), (WIDTH - 200, HEIGHT - 200))
    return (centre + radius * rng.uniform(0.4, 1, (NUM_KEYPOINTS, 1))).astype(np.float32)


def _entry(frame: str, number: int) -> dict:
    flags_N = np.where(np.arange(NUM_KEYPOINTS) % 7 == number % 7, Flag.OCCLUDED, Flag.VISIBLE)
    return image_entry(frame, [face_to_sloth(_points(number), flags_N)])


def _rows(folder: Path, frames: list[str], hashes: list[str], numbers: range, changed: bool) -> pa.Table:
    faces, splits = [], []
    for number in numbers:
        frame, flags_N = number % len(frames), np.zeros(NUM_KEYPOINTS, np.int8)
        flags_N[0] = int(changed and number == 0)
        faces.append(
            Face(
                source_key=f"bench:{number:07d}",
                image=str(folder / frames[frame]),
                image_name=frames[frame],
                image_sha256=hashes[frame],
                frame_width=WIDTH,
                frame_height=HEIGHT,
                subject=f"bench/{frame % 200}",
                set_id="bench",
                points_N2=_points(number),
                flags_N=flags_N,
            )
        )
        splits.append(Split.KPI if frame % 200 == 0 else Split.VALIDATION if frame % 10 == 1 else Split.TRAIN)
    return faces_to_table(faces, splits, NUM_KEYPOINTS)
