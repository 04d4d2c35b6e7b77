"""Validation on one core: records a second of ours, of parsing alone, and of the plain way.

    python bench/validation.py
    python bench/validation.py --sloth 100000 --tasks 10000 --repetitions 7

- `ours`: what `retrain` and `dataset_convert` do with a ground-truth file: read it, find subjects and images, apply
  every rule (schema, labels, counts, frame, shape, subject, two subjects, duplicates), with an index that knows the
  images, so that their facts are looked up and no image is read.
- `parse`: `orjson.loads` of the same records, some hundred at a time, and nothing else, which nothing that parses
  with orjson can beat.
- `plain`: `json.load`, and the pure-Python `jsonschema` with the same JSON Schema: form only, no other rule. It is
  given fewer records, since it is slow.

The records are made here: faces of 80 keypoints, every fifth occluded, over tiny images. The three take turns. The
defaults take about a minute. Another process on the same core does change the numbers.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
import pyarrow as pa
from hardware import hardware
from jsonschema import Draft202012Validator

import schemas
from schemas.config import ValidationRules
from schemas.geometry import Box
from schemas.label_studio_task import build_task
from schemas.raw import RawRecord
from schemas.sloth import face_to_sloth, image_entry
from schemas.sources import LabelStudioExportSource, SlothSource, SubjectRule
from tasks.images import ImageIndex
from tasks.pull_files import pull_export, pull_sloth
from tasks.validate import validate

N, WIDTH, HEIGHT = 80, 128, 80
PIECE = 256
SUBJECT = SubjectRule(dataset="bench", pattern=r"(?P<subject>\d{3})_\d+\.bmp$")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sloth", type=int, default=20_000, help="Sloth records (default: %(default)s)")
    parser.add_argument("--tasks", type=int, default=3_000, help="Label Studio tasks (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=5, help="medians are of so many (default: %(default)s)")
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)), help="runs on this core only")
    chosen = parser.parse_args()
    os.sched_setaffinity(0, {chosen.core})
    pa.set_cpu_count(1)
    print(f"{hardware()}, core {chosen.core}; Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("orjson", "jsonschema", "numpy", "pyarrow")), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        index = _make_images(root, max(chosen.sloth, chosen.tasks))
        sloth, export = root / "gt.json", root / "export.json"
        sloth.write_bytes(orjson.dumps([_entry(number) for number in range(chosen.sloth)]))
        export.write_bytes(orjson.dumps([_task(number) for number in range(chosen.tasks)]))
        sloth_source = SlothSource(kind="sloth", name="bench", root=folder, gt=[sloth.name], subject=SUBJECT)
        export_source = LabelStudioExportSource(
            kind="label_studio_export", name="bench", files=[str(export)], image_root=folder, subject=SUBJECT
        )
        print("| records | bytes each | ours/s | parse/s | plain/s | ours : plain | ours : parse |")
        print("|---|---|---|---|---|---|---|")
        few = max(50, chosen.sloth // 50)
        measure("Sloth", sloth, few, index, lambda: pull_sloth(sloth_source), chosen.repetitions)
        few = max(20, chosen.tasks // 50)
        measure("Label Studio", export, few, index, lambda: pull_export(export_source), chosen.repetitions)


def measure(
    name: str, path: Path, few: int, index: Path, pull: Callable[[], Iterable[RawRecord]], repetitions: int
) -> None:
    """Print the row of one format; the plain way gets the first `few` records."""
    text = path.read_bytes()
    records = orjson.loads(text)
    short = path.with_suffix(".few.json")
    short.write_bytes(orjson.dumps(records[:few]))
    number = len(records)
    pieces = [orjson.dumps(records[start : start + PIECE]) for start in range(0, number, PIECE)]
    del records
    check = _plain_check(name)
    rates: dict[str, list[float]] = {"ours": [], "parse": [], "plain": []}
    for _ in range(repetitions):
        rates["ours"].append(number / _seconds(lambda: _ours(pull(), index, number)))
        rates["parse"].append(number / _seconds(lambda: _parse(pieces)))
        rates["plain"].append(few / _seconds(lambda: check(short)))
    ours, parse, plain = (statistics.median(rates[way]) for way in ("ours", "parse", "plain"))
    cells = f"{number:,} {name} | {len(text) // number:,} | {ours:,.0f} | {parse:,.0f} | {plain:,.0f}"
    print(f"| {cells} | {ours / plain:.1f} x | {ours / parse:.2f} x |", flush=True)


def _ours(records: Iterable[RawRecord], index: Path, number: int) -> None:
    images = ImageIndex(index)
    outcome = validate(records, num_keypoints=N, rules=ValidationRules(), index=images)
    images.close()
    if outcome.counts.accepted != number:
        raise AssertionError(f"{outcome.counts}: {outcome.violations[:3]}")


def _parse(pieces: list[bytes]) -> None:
    """The limit: piece by piece, as all at once fills the memory anew, and without the garbage collector."""
    gc.disable()
    for piece in pieces:
        orjson.loads(piece)
    gc.enable()


def _plain_check(name: str) -> Callable[[Path], None]:
    stem = "sloth" if name == "Sloth" else "label_studio"
    schema: Any = json.loads((Path(schemas.__file__).parent / f"{stem}.schema.json").read_bytes())
    root = {"$ref": schema["$ref"] if "$ref" in schema else schema["items"]["$ref"], "$defs": schema["$defs"]}
    validator = Draft202012Validator(root | {"properties": schema.get("properties", {})})

    def check(path: Path) -> None:
        for record in json.loads(path.read_text()):
            if next(validator.iter_errors(record), None) is not None:
                raise AssertionError("the benchmark's records are sound")

    return check


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _face(number: int) -> tuple[np.ndarray, np.ndarray, Box]:
    random = np.random.default_rng(number)
    points_N2 = random.uniform((20, 5), (100, 70), (N, 2)).astype(np.float32)
    flags_N = (random.random(N) < 0.2).astype(np.int8)
    low, high = points_N2.min(axis=0), points_N2.max(axis=0)
    return points_N2, flags_N, Box(*low.tolist(), *(high - low).tolist())


def _image_name(number: int) -> str:
    return f"{number % 300:03d}_{number:07d}.bmp"


def _entry(number: int) -> dict[str, Any]:
    points_N2, flags_N, box = _face(number)
    return image_entry(_image_name(number), [face_to_sloth(points_N2, flags_N, tight_box=box)])


def _task(number: int) -> dict[str, Any]:
    points_N2, flags_N, box = _face(number)
    data = {"image": f"/data/upload/1/{_image_name(number)}"}
    task = build_task(data, points_N2, flags_N, frame_size=(WIDTH, HEIGHT), tight_box=box)
    stored = {"id": number, "completed_by": 1, "updated_at": "2026-11-22T08:00:00Z"}
    task["annotations"][0] |= stored
    return task | {"id": number}


def _make_images(folder: Path, number: int) -> Path:
    """Images that differ in a few bytes each, and an index that knows them."""
    _, encoded = cv2.imencode(".bmp", np.zeros((HEIGHT, WIDTH), np.uint8))
    bitmap, paths = encoded.tobytes(), []
    for index in range(number):
        path = folder / _image_name(index)
        path.write_bytes(bitmap[:-8] + index.to_bytes(8, "little"))
        paths.append(str(path))
    images = ImageIndex(folder / "index")
    images.inspect(paths)
    images.close()
    return folder / "index"


if __name__ == "__main__":
    main()
