"""How many of the labels at the top of the list of label errors are wrong, against a plain list, on known faults.

    python bench/label_errors.py
    python bench/label_errors.py --data FOLDER --seeds 5

Of the faces `--share` are spoilt, a kind each in turn, and as many faces from the top of either list are looked at:
precision there equals recall. `ours` is `model.label_errors`; `plain` is the largest z-score of a face's coordinates
after Procrustes alignment. A perfect list has 1.0.

- `swapped`: left and right exchanged, of the whole face, the eyes, the eyebrows or the mouth.
- `shifted`: a contour's points numbered one or two on or back.
- `moved`: any one point, in any direction, by `--moved` of the distance between the outer corners of the eyes.
- `flagged`: any one occlusion flag turned round; only where the data has flags.

`--data` is a folder of Sloth/TAO files (`gt/**/*.json`) with `manifest.csv` (columns file, subject_id); without it
heads are rendered, keypoints only, with an annotator's noise. The defaults take a minute.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hardware import hardware

from model.faces.expression import EXPRESSIONS
from model.faces.identity import sample_identity
from model.faces.scene import Pose, Scene, keypoints
from model.flag_model import flag_doubts
from model.label_errors import folds, rank_label_errors
from model.shape_model import aligned, complex_shapes
from schemas.layouts import OUTER_EYE_CORNERS, layout
from schemas.sloth import flags_known_in, has_flags, load_sloth_file, read
from schemas.sources import SubjectRule
from tasks.subjects import subject_finder

SWAPPED_PARTS = ("All", "Eyes", "Eyebrows", "Mouth")
STEPS = (-2, -1, 1, 2)
SIZES = ((0.04, 0.08), (0.08, 0.12), (0.12, 0.18), (0.18, 0.25))
NOISE = 0.012  # of an annotator, of the distance between the outer corners of the eyes


@dataclass(frozen=True)
class Faces:
    points_FN2: np.ndarray
    flags_FN: np.ndarray
    subjects: tuple[str, ...]


def rendered_faces(number: int, num_keypoints: int) -> Faces:
    """Two faces of each subject, up to 45 degrees to either side; something hides a part of every third."""
    rng = np.random.default_rng(0)
    acts = list(EXPRESSIONS.values())
    points = []
    for face in range(number):
        if face % 2 == 0:
            identity = sample_identity(rng)
        pose = Pose(yaw=rng.uniform(-45, 45), pitch=rng.uniform(-12, 12), roll=rng.uniform(-20, 20))
        points.append(keypoints(Scene(identity, acts[rng.integers(len(acts))], pose))[:num_keypoints])
    points_FN2 = np.array(points)
    points_FN2 += rng.normal(size=points_FN2.shape) * NOISE * eye_distance(points_FN2)[:, None, None]
    centre_F2 = points_FN2[np.arange(number), rng.integers(num_keypoints, size=number)]
    reach_F = eye_distance(points_FN2) * rng.uniform(0.2, 0.6, number) * (np.arange(number) % 3 == 0)
    hidden_FN = np.linalg.norm(points_FN2 - centre_F2[:, None], axis=-1) < reach_F[:, None]
    return Faces(points_FN2, hidden_FN.astype(np.int8), tuple(f"made/{face // 2}" for face in range(number)))


def stored_faces(folder: Path, num_keypoints: int) -> Faces:
    rule = SubjectRule(dataset=folder.name, csv=str(folder / "manifest.csv"))
    find = subject_finder(rule)
    entries = [entry for path in sorted(folder.glob("gt/**/*.json")) for entry in load_sloth_file(path)]
    flagged = any(has_flags(entry) for entry in entries)
    points, flags, subjects = [], [], []
    for entry in entries:
        known = flags_known_in(entry, flagged)
        for face in read(entry, num_keypoints=num_keypoints, flags_known=known)[0]:
            points.append(face.points_N2)
            flags.append(face.flags_N)
            subjects.append(str(find(entry["filename"], {})))
    return Faces(np.array(points, np.float64), np.array(flags, np.int8), tuple(subjects))


def eye_distance(points_FN2: np.ndarray) -> np.ndarray:
    right, left = OUTER_EYE_CORNERS
    return np.linalg.norm(points_FN2[:, right] - points_FN2[:, left], axis=-1)


def spoilt(faces: Faces, kinds: Sequence[str], share: float, sizes: tuple[float, float], seed: int):
    """The faces with `share` of them spoilt, and row -> kind of those."""
    rng = np.random.default_rng(seed)
    points_FN2, flags_FN = faces.points_FN2.copy(), faces.flags_FN.copy()
    rows = rng.permutation(len(points_FN2))[: round(share * len(points_FN2))].tolist()
    truth = {row: kinds[number % len(kinds)] for number, row in enumerate(rows)}
    for row, kind in truth.items():
        if kind == "flagged":
            point = rng.integers(flags_FN.shape[1])
            flags_FN[row, point] = 1 - flags_FN[row, point]
        else:
            points_FN2[row] = SPOIL[kind](points_FN2[row], sizes, rng)
    return Faces(points_FN2, flags_FN, faces.subjects), truth


def swap(points_N2: np.ndarray, _sizes: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    face, result_N2 = layout(len(points_N2)), points_N2.copy()
    part = list(face.regions[SWAPPED_PARTS[rng.integers(len(SWAPPED_PARTS))]])
    result_N2[part] = points_N2[np.array(face.flip)[part]]
    return result_N2


def shift(points_N2: np.ndarray, _sizes: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    contours = [contour for contour in layout(len(points_N2)).contours if len(contour) > 3]
    contour = list(contours[rng.integers(len(contours))])
    result_N2 = points_N2.copy()
    result_N2[contour] = np.roll(points_N2[contour], STEPS[rng.integers(len(STEPS))], axis=0)
    return result_N2


def move(points_N2: np.ndarray, sizes: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(*sizes) * eye_distance(points_N2[None])[0]
    result_N2 = points_N2.copy()
    result_N2[rng.integers(len(points_N2))] += length * np.array([np.cos(angle), np.sin(angle)])
    return result_N2


SPOIL = {"swapped": swap, "shifted": shift, "moved": move}


def our_list(faces: Faces) -> list[int]:
    ranking = rank_label_errors(faces.points_FN2, faces.flags_FN, faces.subjects)
    return list(dict.fromkeys(finding.face for finding in ranking.findings))


def plain_list(faces: Faces) -> list[int]:
    shapes_FN = complex_shapes(faces.points_FN2)
    mean_N = aligned(shapes_FN, shapes_FN[0] - shapes_FN[0].mean()).mean(axis=0)
    turned_FN = aligned(shapes_FN, mean_N)
    numbers_FD = np.concatenate([turned_FN.real, turned_FN.imag], axis=1)
    z_F = np.abs((numbers_FD - numbers_FD.mean(axis=0)) / numbers_FD.std(axis=0)).max(axis=1)
    return np.argsort(-z_F, kind="stable").tolist()


def flag_list(faces: Faces) -> list[int]:
    return np.argsort(-flag_doubts(faces.flags_FN, folds(faces.subjects)).max(axis=1), kind="stable").tolist()


def measure(faces: Faces, kinds: Sequence[str], options: argparse.Namespace, sizes: tuple[float, float], lists):
    """Per list: precision of every seed, found and spoilt of every kind, and seconds."""
    precision = {name: [] for name in lists}
    seconds = {name: [] for name in lists}
    found = {name: dict.fromkeys(kinds, 0) for name in lists}
    number = dict.fromkeys(kinds, 0)
    for seed in range(options.seeds):
        wrong, truth = spoilt(faces, kinds, options.share, sizes, seed)
        for kind in truth.values():
            number[kind] += 1
        for name, ranked in lists.items():
            start = time.perf_counter()
            top = set(ranked(wrong)[: len(truth)])
            seconds[name].append(time.perf_counter() - start)
            precision[name].append(len(top & truth.keys()) / len(truth))
            for row in top & truth.keys():
                found[name][truth[row]] += 1
    return precision, found, number, seconds


def show(title: str, result) -> None:
    precision, found, number, seconds = result
    print(f"\n{title}\n\n| list | precision, median | of each seed | {' | '.join(number)} | s |")
    print("|" + "---|" * (len(number) + 4))
    for name, values in precision.items():
        cells = " | ".join(f"{found[name][kind]}/{number[kind]}" for kind in number)
        each = " ".join(f"{value:.3f}" for value in values)
        took = statistics.median(seconds[name])
        print(f"| {name} | {statistics.median(values):.3f} | {each} | {cells} | {took:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of Sloth/TAO files; without it heads are rendered")
    parser.add_argument("--keypoints", type=int, default=68)
    parser.add_argument("--faces", type=int, default=600, help="rendered ones")
    parser.add_argument("--share", type=float, default=0.02, help="of the faces that are spoilt")
    parser.add_argument("--moved", type=float, nargs=2, default=(0.08, 0.25), metavar=("FROM", "TO"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", action="store_true", help="also moved points alone, by how far they are moved")
    options = parser.parse_args()
    number = (options.faces, options.keypoints)
    faces = stored_faces(options.data, options.keypoints) if options.data else rendered_faces(*number)
    flagged, what = bool((faces.flags_FN >= 0).any()), options.data.name if options.data else "rendered"
    print(f"{hardware()}; ", end="")
    print(f"{what}: {len(faces.subjects)} faces of {len(set(faces.subjects))} subjects")
    lists, sizes = {"ours": our_list, "plain": plain_list}, tuple(options.moved)
    show("order and place", measure(faces, list(SPOIL), options, sizes, lists))
    if flagged:
        show("all kinds", measure(faces, [*SPOIL, "flagged"], options, sizes, lists))
        show("flags alone", measure(faces, ["flagged"], options, sizes, {"flag doubts": flag_list}))
    for low, high in SIZES if options.sizes else ():
        show(f"moved by {low:.0%} to {high:.0%}", measure(faces, ["moved"], options, (low, high), lists))


if __name__ == "__main__":
    main()
