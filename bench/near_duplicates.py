"""How well pictures are found again, and how long the search takes.

    python bench/near_duplicates.py
    python bench/near_duplicates.py --data FOLDER OTHER --faces 20000

- Changed pictures: rendered faces are changed in one way each, and originals and copies, under other subjects, are
  searched together. `found` is the share of the copies that are paired with their original; `wrong` counts pairs of
  two people. `whole hash` is the plain way, in the same run: one hash (`imagehash.phash`) of the whole picture, at
  most as many bits apart.
- `--data`: folders of Sloth/TAO files with `manifest.csv` (columns file, subject_id). Pairs between and within them
  are counted. Where two folders hold images of one name, that is taken for the truth.
- Time: `--faces` random signatures are searched. It grows with the square of the number.

The defaults take a minute.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import cv2
import imagehash
import numpy as np
from hardware import hardware
from PIL import Image

from model.faces.sitting import Sitting
from model.images import read_image
from model.near_duplicates import NUM_HASHES, THUMBNAIL_SIZE, face_view, hashes_of, similar_pairs, thumbnail
from schemas.config import QualitySettings
from schemas.sloth import load_sloth_file, read
from schemas.sources import SubjectRule
from tasks.subjects import subject_finder

Picture = tuple[np.ndarray, np.ndarray]
"""Gray pixels and the keypoints in them."""

SETTINGS = QualitySettings()
BOUNDS = {"bits": SETTINGS.duplicate_bits, "correlation": SETTINGS.min_duplicate_correlation}


def jpeg(gray: np.ndarray, points_N2: np.ndarray) -> Picture:
    _, data = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, 50])
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), points_N2


def half_size(gray: np.ndarray, points_N2: np.ndarray) -> Picture:
    return cv2.resize(gray, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), (points_N2 + 0.5) / 2 - 0.5


def brighter(gray: np.ndarray, points_N2: np.ndarray) -> Picture:
    return np.clip(gray * 0.8 + 30, 0, 255).astype(np.uint8), points_N2


def cropped(gray: np.ndarray, points_N2: np.ndarray) -> Picture:
    height, width = gray.shape
    top, left = height // 12, width // 10
    return np.ascontiguousarray(gray[top:, left:]), points_N2 - (left, top)


def covered(gray: np.ndarray, points_N2: np.ndarray) -> Picture:
    """A plain square over a third of the face's width, about its lowest inner lip."""
    hidden, side = gray.copy(), int(np.ptp(points_N2[:, 0]) / 3)
    x, y = np.maximum(points_N2[66].astype(int), side)
    hidden[y - side : y + side, x - side : x + side] = 128
    return hidden, points_N2


def clicked_again(gray: np.ndarray, points_N2: np.ndarray) -> Picture:
    """Labelled by another person: each point is off by 2 % of the eyes' distance."""
    spread = 0.02 * np.linalg.norm(points_N2[36] - points_N2[45])
    return gray, points_N2 + np.random.default_rng(1).normal(0, spread, points_N2.shape)


CHANGES = (jpeg, half_size, brighter, cropped, covered, clicked_again)


def ours(pictures: Sequence[Picture], groups_F: np.ndarray) -> set[tuple[int, int]]:
    views = [face_view(*picture) for picture in pictures]
    hashes_FH = np.stack([hashes_of(view) for view in views])
    thumbnails_FSS = np.stack([thumbnail(view) for view in views])
    return set(similar_pairs(hashes_FH, thumbnails_FSS, groups_F, **BOUNDS))


def whole_hash(pictures: Sequence[Picture], groups_F: np.ndarray) -> set[tuple[int, int]]:
    hashes_F = np.array([int(str(imagehash.phash(Image.fromarray(gray))), 16) for gray, _ in pictures], np.uint64)
    near = np.bitwise_count(hashes_F[:, None] ^ hashes_F[None, :]) <= SETTINGS.duplicate_bits
    first_P, second_P = np.nonzero(np.triu(near & (groups_F[:, None] != groups_F[None, :]), 1))
    return set(zip(first_P.tolist(), second_P.tolist(), strict=True))


def measure_changes(people: int, photographs: int) -> None:
    pictures: list[Picture] = []
    for number in range(people):
        sitting = Sitting(f"{number + 1:03d}", 0)
        for capture in sitting.captures(photographs):
            shot = sitting.photograph(capture, channels=1)
            pictures.append((shot.image, shot.points_N2[:68]))
    count, who_F = len(pictures), np.repeat(np.arange(people), photographs)
    print(f"{people} rendered people, {photographs} photographs of each\n")
    print("| change | ours: found | wrong | whole hash: found | wrong |\n|---|---|---|---|---|")
    for change in CHANGES:
        both = [*pictures, *(change(*picture) for picture in pictures)]
        cells = [_found_and_wrong(search, both, count, who_F) for search in (ours, whole_hash)]
        print(f"| {change.__name__} | {' | '.join(cells)} |", flush=True)


def _found_and_wrong(search: Callable, both: Sequence[Picture], count: int, who_F: np.ndarray) -> str:
    groups_F = np.concatenate([who_F, who_F + who_F.max() + 1])
    pairs = search(both, groups_F)
    found = sum((row, row + count) in pairs for row in range(count))
    wrong = sum(who_F[first % count] != who_F[second % count] for first, second in pairs)
    return f"{found / count:.3f} | {wrong}"


def measure_data(folders: Sequence[Path], num_keypoints: int) -> None:
    pictures: list[Picture] = []
    names: list[tuple[str, str]] = []
    subjects: list[str] = []
    for folder in folders:
        find = subject_finder(SubjectRule(dataset=folder.name, csv=str(folder / "manifest.csv")))
        for path in sorted(folder.glob("gt/**/*.json")):
            for entry in load_sloth_file(path):
                gray = read_image(folder / entry["filename"], channels=1)
                for face in read(entry, num_keypoints=num_keypoints, flags_known=False)[0]:
                    pictures.append((gray, face.points_N2))
                    names.append((folder.name, entry["filename"]))
                    subjects.append(str(find(entry["filename"], {})))
    number_of = {subject: number for number, subject in enumerate(sorted(set(subjects)))}
    pairs = ours(pictures, np.array([number_of[subject] for subject in subjects]))
    print("\n| folders | pairs of different subjects | of one file name | images of one name |\n|---|---|---|---|")
    number = Counter(tuple(sorted((names[first][0], names[second][0]))) for first, second in pairs)
    same = Counter(
        tuple(sorted((names[first][0], names[second][0])))
        for first, second in pairs
        if names[first][1] == names[second][1]
    )
    files = {folder.name: {name for own, name in names if own == folder.name} for folder in folders}
    for both in [*((name, name) for name in files), *(tuple(sorted(two)) for two in combinations(files, 2))]:
        shared = len(files[both[0]] & files[both[1]]) if both[0] != both[1] else 0
        print(f"| {' and '.join(dict.fromkeys(both))} | {number[both]} | {same[both]} | {shared} |", flush=True)


def measure_time(count: int) -> None:
    rng = np.random.default_rng(0)
    hashes_FH = rng.integers(1, 2**63, (count, NUM_HASHES), dtype=np.uint64)
    thumbnails_FSS = rng.integers(0, 256, (count, THUMBNAIL_SIZE, THUMBNAIL_SIZE), np.uint8)
    start = time.perf_counter()
    pairs = list(similar_pairs(hashes_FH, thumbnails_FSS, np.arange(count), **BOUNDS))
    seconds = time.perf_counter() - start
    compared = count * (count - 1) / 2
    print(f"\n{count:,} random signatures: {seconds:.1f} s, {len(pairs)} pairs, {compared / seconds / 1e6:.0f} M/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of Sloth/TAO files")
    parser.add_argument("--keypoints", type=int, default=68)
    parser.add_argument("--people", type=int, default=20, help="rendered ones")
    parser.add_argument("--photographs", type=int, default=6, help="of each of them")
    parser.add_argument("--faces", type=int, default=10_000, help="random signatures to search")
    options = parser.parse_args()
    print(f"{hardware()}; ", end="")
    measure_changes(options.people, options.photographs)
    if options.data:
        measure_data(options.data, options.keypoints)
    measure_time(options.faces)


if __name__ == "__main__":
    main()
