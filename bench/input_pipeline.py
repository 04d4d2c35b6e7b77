"""The input pipeline against an ordinary tf.data map of the same augmentations, and its cost beside a training step.

    python bench/input_pipeline.py

Every augmentation of TAO's documented spec is on. Two parts, each interleaved in one run, medians over rounds:

- faces per second of (a) `plain_input.py`, on records with embedded crops and on TAO's records, whose frames
  (1280 x 800 PNG) it decodes; (b) ours, faces kept in memory and read every epoch; (c) reading and parsing alone.
- time of a training step with our pipeline over that on one batch in memory, again and again.

Takes five minutes on two cores; `--only steps --rounds 3 --models ResidualUNet:16` takes one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf
from hardware import hardware
from plain_input import plain_batches

from model.faces.sitting import Sitting
from model.images import encode_png
from model.learner import Learner
from model.pipeline import training_batches
from model.record_tensors import FEATURES, LABELS
from model.tfrecords import serialize_face, write_records
from schemas.experiment import ExperimentSpec
from schemas.geometry import tight_square
from schemas.records import Face, Flag
from schemas.yamlspec import load_spec

SPEC = Path(__file__).parent.parent / "tests" / "data" / "tao_experiment_spec.yaml"
FRAME_WIDTH, FRAME_HEIGHT, ENLARGED = 1280, 800, 2
PER_SUBJECT = 16


def write_data(folder: Path, faces: int) -> tuple[Path, Path]:
    """Files of the same rendered faces, 80 keypoints: with embedded crops, and with their frames beside them."""
    rng, records = np.random.default_rng(0), {"embedded": [], "frames": []}
    for number in range(faces):
        subject = Sitting(f"{number // PER_SUBJECT + 1:03d}", 0)
        capture = subject.captures(PER_SUBJECT)[number % PER_SUBJECT]
        shot = subject.photograph(capture, channels=1)
        image = cv2.resize(shot.image, None, fx=ENLARGED, fy=ENLARGED)
        frame = rng.integers(100, 116, (FRAME_HEIGHT, FRAME_WIDTH), np.uint8)
        left, top = int(rng.integers(100, FRAME_WIDTH - 500)), int(rng.integers(100, FRAME_HEIGHT - 500))
        frame[top : top + image.shape[0], left : left + image.shape[1]] = image
        points_N2 = ((shot.points_N2[:80] + 0.5) * ENLARGED - 0.5 + [left, top]).astype(np.float32)
        name = f"{number:05d}.png"
        (folder / name).write_bytes(encode_png(frame))
        face = Face(
            source_key=name,
            image=name,
            image_name=name,
            image_sha256="",
            frame_width=FRAME_WIDTH,
            frame_height=FRAME_HEIGHT,
            subject=f"bench/{number // PER_SUBJECT:03d}",
            set_id="bench",
            points_N2=points_N2,
            flags_N=np.where(shot.occluded_N[:80], Flag.OCCLUDED, Flag.VISIBLE).astype(np.int8),
        )
        box = tight_square(points_N2).enlarged(1.15)
        records["embedded"].append(serialize_face(face, box, frame))
        records["frames"].append(serialize_face(face, box))
    for name, serialised in records.items():
        write_records(folder / f"{name}.tfrecords", serialised)
    return folder / "embedded.tfrecords", folder / "frames.tfrecords"


def bench_spec(root: Path, *, memory_mib: int = 1024, kind: str = "FpeNet_public", width: int = 64) -> ExperimentSpec:
    """TAO's documented spec without ELT, on our files, with a network of ours."""
    spec = load_spec(ExperimentSpec, SPEC)
    loader, loss, model = spec.dataloader, spec.loss, spec.model
    info = loader.dataset_info.model_copy(update={"root_path": f"{root}/"})
    elt = loss.elt_loss_info.model_copy(update={"enable_elt_loss": False})
    parameters = model.model_parameters.model_copy(
        update={"type": kind, "width": width, "dropout_rate": 0.0, "pretrained_model_path": None}
    )
    return spec.model_copy(
        update={
            "dataloader": loader.model_copy(update={"dataset_info": info, "memory_mib": memory_mib}),
            "loss": loss.model_copy(update={"elt_loss_info": elt}),
            "model": model.model_copy(update={"model_parameters": parameters}),
        }
    )


def parsed_batches(path: Path, spec: ExperimentSpec) -> tf.data.Dataset:
    batches = tf.data.TFRecordDataset(str(path)).repeat().batch(spec.dataloader.batch_size)
    return batches.map(lambda records_B: tf.io.parse_example(records_B, FEATURES | LABELS)).prefetch(2)


def ours(path: Path, root: Path, faces: int, **options: int) -> tf.data.Dataset:
    spec = bench_spec(root, **options)
    steps = max(1, faces // spec.dataloader.batch_size)
    return training_batches([path], spec, epochs=range(100_000), steps=steps)


def seconds(step: Callable[[], object], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        step()
    return (time.perf_counter() - started) / times


def compare_inputs(embedded: Path, frames: Path, faces: int, rounds: int) -> None:
    root, spec = embedded.parent, bench_spec(embedded.parent)
    makers = {
        "plain map, embedded crops": (lambda: plain_batches(embedded, spec, embedded=True), 15),
        "plain map, frames": (lambda: plain_batches(frames, spec, embedded=False), 2),
        "ours, kept in memory": (lambda: ours(embedded, root, faces), 40),
        "ours, read every epoch": (lambda: ours(embedded, root, faces, memory_mib=0), 20),
        "reading and parsing alone": (lambda: parsed_batches(embedded, spec), 40),
    }
    times: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(rounds):
        for name, (make, batches) in makers.items():
            iterator = iter(make())
            seconds(lambda iterator=iterator: next(iterator), 6)  # what was prefetched, and the first epoch's reading
            times[name].append(seconds(lambda iterator=iterator: next(iterator), batches))
    size = spec.dataloader.batch_size
    medians = {name: statistics.median(values) for name, values in times.items()}
    kept = medians["ours, kept in memory"]
    print(f"\n| input, batches of {size} | faces/s | ms a batch | ours in memory is faster by |\n|---|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {size / median:,.0f} | {median * 1e3:.1f} | {median / kept:.1f} |")


def compare_steps(embedded: Path, faces: int, models: list[str], rounds: int, steps: int) -> None:
    print("\n| step, batch of 64 | repeated batch, ms | with the pipeline, ms | ratio | least | most |")
    print("|---|---|---|---|---|---|")
    for model in models:
        kind, width = model.split(":")
        spec = bench_spec(embedded.parent, kind=kind, width=int(width))
        learner = Learner(spec)
        batches = iter(ours(embedded, embedded.parent, faces, kind=kind, width=int(width)))
        repeated = next(batches)

        def learn(source: Iterator[dict[str, tf.Tensor]], learner: Learner = learner) -> None:
            float(learner.step(next(source), number=0, learning_rate=1e-6)["loss"])

        def again(batch: dict[str, tf.Tensor] = repeated) -> Iterator[dict[str, tf.Tensor]]:
            while True:
                yield batch

        still, pairs = again(), []
        seconds(lambda still=still, learn=learn: learn(still), 2)
        for _ in range(rounds):
            alone = seconds(lambda still=still, learn=learn: learn(still), steps)
            pairs.append((alone, seconds(lambda batches=batches, learn=learn: learn(batches), steps)))
        alone, fed = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratios = [b / a for a, b in pairs]
        print(
            f"| {kind} {width} | {alone * 1e3:.1f} | {fed * 1e3:.1f} | {statistics.median(ratios):.3f} "
            f"| {min(ratios):.3f} | {max(ratios):.3f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=256, help="rendered faces (default 256)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="steps of each kind a round")
    parser.add_argument("--models", nargs="*", default=["FpeNet_public:64", "ResidualUNet:32"], help="type:width")
    parser.add_argument("--only", choices=["inputs", "steps"], help="one of the two parts")
    arguments = parser.parse_args()
    print(f"{hardware()}, TensorFlow {tf.__version__}, {arguments.faces} faces, {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        embedded, frames = write_data(Path(folder), arguments.faces)
        if arguments.only != "steps":
            compare_inputs(embedded, frames, arguments.faces, arguments.rounds)
        if arguments.only != "inputs":
            compare_steps(embedded, arguments.faces, arguments.models, arguments.rounds, arguments.steps)


if __name__ == "__main__":
    main()
