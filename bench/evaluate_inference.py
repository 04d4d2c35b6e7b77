"""Rate of `evaluate` and `inference` against the bare model, reading included, side by side.

    python bench/evaluate_inference.py                      a minute or two on two quiet cores
    python bench/evaluate_inference.py --faces 2000 --frames 300 --rounds 5
    python bench/evaluate_inference.py --memory             peak memory for 1,000 and for 10,000 images instead

Bare is the predictor called again and again on one batch in memory. Rounds are interleaved; the tables show medians,
and the median of the ratio to the same round's bare rate. CPU time a face is of all threads: what the machine's other
work disturbs least. Faces are rendered, weights are fresh. `evaluate` counts
from the start of reading to the last error; its report, with the bootstrap, is timed on its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from hardware import hardware

from deploy.onnx_export import export_onnx
from deploy.predictor import Predictor, load_predictor
from model.crop import crop_face
from model.evaluation import evaluate
from model.evaluation_files import write_reference_files
from model.faces.dataset import render_dataset
from model.inference import run_inference
from model.network import build_network
from model.pipeline import evaluation_batches
from model.weights import save_network
from schemas.config import DatasetConvertSpec
from schemas.experiment import ExperimentSpec, ModelParameters
from schemas.geometry import Box, SquareCrop
from schemas.sloth import load_sloth_file, read_face_boxes
from schemas.yamlspec import parse_spec
from tasks.dataset_convert import dataset_convert

SUBJECTS, SHOTS = ("006", "079", "254", "342"), 8
SMALL_SIDE = 250
FRAME = (1280, 800)
MEMORY_IMAGES = (1_000, 10_000)


@dataclass(frozen=True)
class Case:
    """One row: `run` does its work and returns the number of faces."""

    name: str
    run: Callable[[], int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=384, help="faces of evaluate, and small images (%(default)s)")
    parser.add_argument("--frames", type=int, default=96, help="frames of 1280 x 800 (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--model", default="FpeNet_public:64", help="type and width (%(default)s)")
    parser.add_argument("--kinds", nargs="+", default=["keras", "onnx"], choices=["keras", "onnx"])
    parser.add_argument("--memory", action="store_true", help="measure peak memory, not rates")
    parser.add_argument("--memory-of", nargs=2, metavar=("FOLDER", "IMAGES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        print(json.dumps(peak_memory(Path(given.memory_of[0]), int(given.memory_of[1]))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, given)
        (show_memory if given.memory else show_rates)(folder, given)


def make_data(folder: Path, given: argparse.Namespace) -> None:
    """Rendered frames, their faces as small images, a shard, and a model of each kind."""
    kind, width = given.model.split(":")
    network = build_network(ModelParameters(type=kind, width=8 if given.memory else int(width)), num_keypoints=80)
    save_network(network, folder / "model.keras")
    export_onnx(network, folder / "model.onnx")
    render_dataset(folder / "rendered", subjects=SUBJECTS, images_per_subject=SHOTS, color="rgb")
    entries = [entry for path in sorted((folder / "rendered").rglob("*.json")) for entry in _entries(path)]
    boxes = [(folder / "rendered" / entry["filename"], read_face_boxes(entry)[1][0]) for entry in entries]
    small = max(MEMORY_IMAGES) if given.memory else given.faces
    write_images(folder / "frames.json", boxes, given.frames, in_large_frame, ".png")
    for suffix in (".jpg", ".png"):
        write_images(folder / f"small{suffix}.json", boxes, small, cut_out, suffix)
    if not given.memory:
        sets = sorted(path.name for path in (folder / "rendered/gt").iterdir())
        convert(folder, sets)


def _entries(path: Path) -> list[dict]:
    loaded = load_sloth_file(path) if path.parent.parent.name == "gt" else []
    return list(loaded)


def convert(folder: Path, sets: Iterable[str]) -> None:
    dataset_convert(
        DatasetConvertSpec(
            sets=list(sets),
            gt_path="gt",
            gt_root_path=str(folder / "rendered"),
            image_root_path=str(folder / "rendered"),
            save_path="shards",
            save_root_path=str(folder),
            tfrecord_folder="",
            tfrecord_name="faces",
            box_outside_frame="pad",
            embed_crops=True,
        )
    )


def in_large_frame(image: np.ndarray, box: Box) -> tuple[np.ndarray, Box]:
    """Enlarged to a gray frame of 1280 x 800 with camera noise, about 0.5 MB as PNG."""
    width, height = FRAME
    scale = height / len(image)
    side = (width - height) // 2
    gray = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (height, height))
    frame = cv2.copyMakeBorder(gray, 0, 0, side, side, cv2.BORDER_REFLECT)
    noise = np.random.default_rng(0).normal(0, 1.2, frame.shape)
    large = np.clip(frame + noise, 0, 255).astype(np.uint8)
    return large, Box(box.x * scale + side, box.y * scale, box.width * scale, box.height * scale)


def cut_out(image: np.ndarray, box: Box) -> tuple[np.ndarray, Box]:
    """The face with as much again around it, `SMALL_SIDE` pixels wide."""
    side = 2 * max(box.width, box.height)
    crop = SquareCrop(box.x + (box.width - side) / 2, box.y + (box.height - side) / 2, side, SMALL_SIDE)
    quarter = SMALL_SIDE / 4
    return crop_face(image, crop), Box(quarter, quarter, 2 * quarter, 2 * quarter)


def write_images(listing: Path, faces: list[tuple[Path, Box]], count: int, change: Callable, suffix: str) -> None:
    """`count` images beside a TAO JSON that lists them; a few files, and links to them."""
    folder = listing.with_suffix("")
    folder.mkdir()
    entries = []
    for number in range(count):
        path = folder / f"{number:06d}{suffix}"
        if number < len(faces):
            source, box = faces[number]
            image, box = change(cv2.imread(str(source)), box)
            cv2.imwrite(str(path), image)
            entries.append(_entry(path, box))
        else:
            first = folder / f"{number % len(faces):06d}{suffix}"
            os.link(first, path)
            entries.append({**entries[number % len(faces)], "filename": str(path)})
    listing.write_text(json.dumps(entries))


def _entry(path: Path, box: Box) -> dict:
    sides = zip(("x", "y", "width", "height"), box, strict=True)
    chunk = {"class": "FaceBbox", **{f"face_tight_bbox{side}": value for side, value in sides}}
    return {"class": "image", "filename": str(path), "annotations": [chunk]}


def show_rates(folder: Path, given: argparse.Namespace) -> None:
    print(f"{hardware()}; {given.model}, batch", end=" ")
    print(f"{given.batch_size}; {given.rounds} rounds; medians\n")
    for kind in given.kinds:
        predictor = load_predictor(folder / f"model.{kind}")
        table = measure(cases(folder, predictor, given), given.rounds)
        print(f"| {kind} | faces/s | of bare, same round | CPU ms a face |\n|---|---|---|---|")
        for name, (rate, ratio, cpu_ms) in table.items():
            print(f"| {name} | {rate:.1f} | {ratio:.3f} | {cpu_ms:.2f} |", flush=True)
        print()
    print(f"report of evaluate, bootstrap included: {report_seconds(folder, predictor, given):.2f} s")


def cases(folder: Path, predictor: Predictor, given: argparse.Namespace) -> list[Case]:
    size = given.batch_size
    batch = np.random.default_rng(0).uniform(0, 255, (size, 80, 80, 1)).astype(np.float32)

    def bare() -> int:
        times = -(-given.faces // size)
        for _ in range(times):
            predictor.predict(batch)
        return times * size

    def infer(listing: str, *, draw: bool) -> int:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            done = run_inference(
                predictor.predict, folder / listing, Path(out), batch_size=size, draw=draw, root=folder
            )
        return done.faces

    rows = [Case("bare model", bare), Case("evaluate", lambda: len(evaluated(folder, predictor, given)))]
    for what, listing in (
        (f"{SMALL_SIDE} x {SMALL_SIDE} JPEG", "small.jpg.json"),
        (f"{SMALL_SIDE} x {SMALL_SIDE} PNG", "small.png.json"),
        ("1280 x 800 PNG", "frames.json"),
    ):
        rows.append(Case(f"inference --no-images, {what}", partial(infer, listing, draw=False)))
        rows.append(Case(f"inference, {what}", partial(infer, listing, draw=True)))
    return rows


def evaluated(folder: Path, predictor: Predictor, given: argparse.Namespace):
    """The evaluation of the shards, read as often as the number of faces asks for."""
    shards = sorted((folder / "shards").glob("*/faces"))
    times = -(-given.faces // (len(SUBJECTS) * SHOTS))
    return evaluate(predictor.predict, evaluation_batches(shards * times, spec(given.batch_size)))


def spec(batch_size: int) -> ExperimentSpec:
    image = "{image: {height: 80, width: 80, channel: 1}}"
    return parse_spec(
        ExperimentSpec,
        f"""
num_keypoints: 80
num_epoch: 1
model: {{model_parameters: {{}}}}
optimizer: {{learning_rate_schedule: {{soft_start: 0.3, annealing: 0.5, base_learning_rate: 0.001}}}}
loss: {{loss_type: wing_loss}}
dataloader: {{batch_size: {batch_size}, num_keypoints: 80, image_info: {image}}}
""",
        "bench",
    )


def measure(rows: list[Case], rounds: int) -> dict[str, tuple[float, float, float]]:
    """Name -> medians of faces a second, of its ratio to the first row's of the same round, and of CPU ms a face.

    A round before the first warms up.
    """
    rates: dict[str, list[float]] = {row.name: [] for row in rows}
    cpu_ms: dict[str, list[float]] = {row.name: [] for row in rows}
    for number in range(rounds + 1):
        for row in rows:
            started, cpu_started = time.perf_counter(), time.process_time()
            faces = row.run()
            if number:
                rates[row.name].append(faces / (time.perf_counter() - started))
                cpu_ms[row.name].append(1000 * (time.process_time() - cpu_started) / faces)
    bare = rates[rows[0].name]
    return {
        name: (
            statistics.median(found),
            statistics.median(a / b for a, b in zip(found, bare, strict=True)),
            statistics.median(cpu_ms[name]),
        )
        for name, found in rates.items()
    }


def report_seconds(folder: Path, predictor: Predictor, given: argparse.Namespace) -> float:
    evaluation = evaluated(folder, predictor, given)
    started = time.perf_counter()
    write_reference_files(evaluation, folder / "report")
    return time.perf_counter() - started


def show_memory(folder: Path, given: argparse.Namespace) -> None:
    print("| images | faces/s | peak memory, MiB |\n|---|---|---|")
    for images in MEMORY_IMAGES:
        listed = json.loads((folder / "small.jpg.json").read_text())[:images]
        (folder / "listed.json").write_text(json.dumps(listed))
        command = [sys.executable, __file__, "--memory-of", str(folder), str(images)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"| {images:,} | {found['faces_per_second']:.0f} | {found['peak_mib']:.0f} |", flush=True)


def peak_memory(folder: Path, images: int) -> dict[str, float]:
    """Inference, images drawn, in this process."""
    predictor = load_predictor(folder / "model.onnx")
    started = time.perf_counter()
    done = run_inference(predictor.predict, folder / "listed.json", folder / f"out{images}")
    seconds = time.perf_counter() - started
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"faces_per_second": done.faces / seconds, "peak_mib": peak_kib / 1024}


if __name__ == "__main__":
    main()
