"""A folder as a small team of labellers might leave it, and its quality page.

    python bench/annotator_team.py FOLDER
    fpenet run quality --config FOLDER/config.yaml

Rendered faces, each annotated by two of three made-up people: `anna` is steady, `ben` puts the eyebrows too high and
calls more points occluded, `carla` shakes a little. On some faces one of them moved the mouth, left a point behind or
was of another mind about what is hidden; on a few both made the same kind of slip, which only a look at all faces
finds. `docs/quality.png` is the page of the default size, whose faces take about half a minute to render:

    chromium --headless --window-size=1120,2600 --screenshot=docs/quality.png FOLDER/workspace/quality/*/index.html
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

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
"""One in this many annotations gets a slip of one kind or another."""

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


def write_export(faces: Path, path: Path, *, seed: int = 0) -> int:
    """Write the team's export of a rendered dataset; return the number of tasks."""
    rng = np.random.default_rng(seed)
    tasks = []
    for gt in sorted(faces.glob("gt/*/*.json")):
        for entry in read_json(gt):
            (face,), _ = sloth.read(entry, num_keypoints=NUM_KEYPOINTS, flags_known=True)
            first = len(tasks) % 3
            slips = [
                rng.choice(["mouth", "point", "swapped", "flags"]) if rng.random() < 1 / SLIP_EVERY else None
            ] * 2
            if rng.random() < 0.6:
                slips[0] = None
            annotations = [
                annotate(face, PEOPLE[(first + who) % 3], slip, rng)
                | {"id": 2 * len(tasks) + who, "completed_by": {"id": PEOPLE[(first + who) % 3]}}
                | {"updated_at": f"2026-11-21T{9 + who:02d}:00:00Z"}
                for who, slip in enumerate(slips)
            ]
            data = {"image": entry["filename"], "name": entry["filename"]}
            tasks.append({"id": len(tasks) + 1, "data": data, "annotations": annotations})
    write_bytes(path, json.dumps(tasks).encode())
    return len(tasks)


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
        "split": {"kpi_subjects": ["multipie-like/079", "multipie-like/080"]},
        "experiment_spec": "none.yaml",
    }
    write_bytes(folder / "config.yaml", yaml.safe_dump(config).encode())
    print(f"{tasks} tasks; now run: fpenet run quality --config {folder / 'config.yaml'}")


if __name__ == "__main__":
    main()
