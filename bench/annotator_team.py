"""A folder as a small team of labellers might leave it, and its quality page.

    python bench/annotator_team.py FOLDER
    fpenet run quality --config FOLDER/config.yaml

Rendered faces, each annotated by two of three made-up people: `anna` is steady, `ben` puts the eyebrows too high and
calls more points occluded, `carla` shakes a little. On some faces one of them moved the mouth, left a point behind,
swapped left and right or was of another mind about what is hidden; on others both slipped in the same way, which only
a look at all faces finds. Three photographs are there twice, under another subject's name.

`docs/quality.png` is the page of the default size, made smaller; its faces take about half a minute to render:

    chromium --headless --window-size=1120,3640 --screenshot=docs/quality.png FOLDER/workspace/quality/*/index.html
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from model.faces.dataset import SUBJECT_RULE, default_subjects, render_dataset
from schemas import sloth
from schemas.annotation import AnnotatedFace
from schemas.geometry import tight_square
from schemas.label_studio_task import build_task
from schemas.layouts import layout
from schemas.storage import read_json, write_bytes

NUM_KEYPOINTS = 80
FRAME = (192, 192)
PEOPLE = ("anna", "ben", "carla")
SHAKE_PX = {"anna": 0.5, "ben": 0.6, "carla": 0.9}
SLIP_EVERY = 14
"""One in this many faces gets a slip of one kind or another."""

SLIPS = ("mouth", "point", "swapped", "flags")
COPIES = ("901", "902", "903")
"""Subjects under whose names a photograph of another subject is there a second time."""

REGIONS = layout(NUM_KEYPOINTS).regions


def annotate(face: AnnotatedFace, person: str, slip: str | None, rng: np.random.Generator) -> dict[str, Any]:
    """One person's annotation of a face whose true points are known, as Label Studio exports it."""
    points_N2 = face.points_N2 + rng.normal(0, SHAKE_PX[person], (NUM_KEYPOINTS, 2))
    flags_N = np.where(rng.random(NUM_KEYPOINTS) < 0.01, 1 - face.flags_N, face.flags_N)
    if person == "ben":
        points_N2[list(REGIONS["Eyebrows"]), 1] -= 1.5
        flags_N[rng.random(NUM_KEYPOINTS) < 0.06] = 1
    if slip == "mouth":
        points_N2[list(REGIONS["Mouth"])] += (9, 5)
    elif slip == "point":
        points_N2[rng.choice(REGIONS["Chin"])] += (24, -18)
    elif slip == "swapped":
        points_N2 = points_N2[list(layout(NUM_KEYPOINTS).flip or ())]
    elif slip == "flags":
        flags_N[rng.random(NUM_KEYPOINTS) < 0.4] ^= 1
    task = build_task({}, points_N2, flags_N, frame_size=FRAME, tight_box=tight_square(points_N2))
    return task["annotations"][0]


def copy_under_other_name(faces: Path, entry: dict[str, Any], subject: str) -> dict[str, Any]:
    """A brighter copy of a photograph that went through JPEG, under another subject's name; its ground truth."""
    name = f"images/{subject}{Path(entry['filename']).name[3:]}"
    _, jpeg = cv2.imencode(".jpg", cv2.convertScaleAbs(cv2.imread(str(faces / entry["filename"])), alpha=1.1, beta=5))
    cv2.imwrite(str(faces / name), cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
    return entry | {"filename": name}


def write_export(faces: Path, path: Path, *, seed: int = 0) -> int:
    """Write the team's export of a rendered dataset; return the number of tasks."""
    rng = np.random.default_rng(seed)
    entries = [entry for gt in sorted(faces.glob("gt/*/*.json")) for entry in read_json(gt)]
    entries += [
        copy_under_other_name(faces, entry, other) for entry, other in zip(entries[::70], COPIES, strict=False)
    ]
    tasks = [export_task(number, entry, rng) for number, entry in enumerate(entries)]
    write_bytes(path, json.dumps(tasks).encode())
    return len(tasks)


def export_task(number: int, entry: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A task that two of the three annotated."""
    (face,), _ = sloth.read(entry, num_keypoints=NUM_KEYPOINTS, flags_known=True)
    slips: list[str | None] = [None, None]
    if rng.random() < 1 / SLIP_EVERY:
        slips[1] = str(rng.choice(SLIPS))
        slips[0] = slips[1] if rng.random() < 0.4 else None
    annotations = []
    for who, slip in enumerate(slips):
        person = PEOPLE[(number + who) % len(PEOPLE)]
        said = {
            "id": 2 * number + who,
            "completed_by": {"id": person},
            "updated_at": f"2026-11-21T{9 + who:02d}:00:00Z",
        }
        annotations.append(annotate(face, person, slip, rng) | said)
    name = entry["filename"]
    return {"id": number + 1, "data": {"image": name, "name": name}, "annotations": annotations}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images-per-subject", type=int, default=5, help="of 40 subjects (default: %(default)s)")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    render_dataset(
        folder / "faces",
        subjects=default_subjects(40),
        images_per_subject=arguments.images_per_subject,
        num_keypoints=NUM_KEYPOINTS,
        color="rgb",
    )
    tasks = write_export(folder / "faces", folder / "export.json")
    config = {
        "workspace": str(folder / "workspace"),
        "num_keypoints": NUM_KEYPOINTS,
        "sources": [
            {
                "kind": "label_studio_export",
                "name": "team",
                "files": [str(folder / "export.json")],
                "image_root": str(folder / "faces"),
                "subject": SUBJECT_RULE.model_dump(exclude_none=True, exclude={"csv_key", "csv_value"}),
            }
        ],
        # All rendered faces are of one mesh, and so more alike than people are.
        "quality": {"duplicate_bits": 6, "min_duplicate_correlation": 0.92},
        "split": {"kpi_subjects": ["multipie-like/079", "multipie-like/080"]},
        "experiment_spec": "none.yaml",
    }
    write_bytes(folder / "config.yaml", yaml.safe_dump(config).encode())
    print(f"{tasks} tasks; now run: fpenet run quality --config {folder / 'config.yaml'}")


if __name__ == "__main__":
    main()
