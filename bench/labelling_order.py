"""Error against labels: this project's order of labelling and a random one, on the same faces.

    python bench/labelling_order.py                                    # rendered faces, tiny: shows that it runs
    python bench/labelling_order.py --data FACES/w300 --results curve.json --chart curve.svg
    python bench/labelling_order.py --draw curve.json --chart curve.svg

Of the training subjects, all but a few are taken for unlabelled. Both orders start from the same few labels, drawn at
random. Before each step up, the network trained so far ranks the unlabelled faces, and their true labels are added;
the random order goes on through one permutation. At each size the same network is trained anew, with the same number
of steps, and measured on the KPI subjects; `--repeats` times, from fresh weights that are the same for both orders,
and the mean counts. Face boxes are known for every face, as they would be from a detector. The order is given no
label of a face it has not taken; it makes its conditions of the yaw that the network sees, and of no occlusion, as
the flow does where it proposes none.

The network is narrow and sees faces at fewer pixels than the product's, so that a training takes less than a minute
on two cores; the defaults with --data take about 25 minutes, those without 2.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from face_folders import converted, folder_source
from hardware import hardware
from labelling_curve import curve_chart, labels_for_error

from model.evaluation import evaluate
from model.labelling_order import conditions_of, labelling_order
from model.labelling_signals import describer, predicting, read_signals
from model.pipeline import EvaluationBatches
from model.shards import read_records
from model.tfrecords import write_records
from model.training import train
from model.weights import load_network
from schemas.config import SplitPolicy
from schemas.experiment import ExperimentSpec
from schemas.records import Split
from schemas.sources import RenderedSource, Source
from schemas.storage import read_json, write_bytes, write_json
from schemas.yamlspec import parse_spec
from tasks.workspace import Workspace

OURS, RANDOM = "by gain", "random"
ENLARGED = 1.15
EPOCHS = 4
"""A training is cut into so many rounds, each of `steps / EPOCHS` batches, however few faces there are."""

BATCH = 16
SPEC = """
num_keypoints: {num_keypoints}
num_epoch: {epochs}
checkpoint_n_epoch: {epochs}
random_seed: {seed}
enable_visualization: false
model: {{model_parameters: {{type: ResidualUNet, width: {width}, beta: 1.0}}}}
loss:
  loss_type: wing_loss
  heatmap_coeff: 1.0
  heatmap_sigma_px: 1.0
optimizer:
  learning_rate_schedule:
    {{soft_start: 0.03, annealing: 0.5, base_learning_rate: 2.0e-3, min_learning_rate: 3.0e-5}}
dataloader:
  batch_size: {batch}
  bbox_enlarge_ratio: {enlarged}
  num_keypoints: {num_keypoints}
  image_info: {{image: {{channel: 1, height: {side}, width: {side}}}}}
  augmentation_info:
    enable_online_augmentation: true
    enable_occlusion_augmentation: true
    patch_probability: 0.2
    size_to_image_ratio: 0.4
    gamma_augmentation: {{gamma_min: 0.6, gamma_max: 1.6, gamma_probability: 0.5}}
    modulus_spatial_augmentation:
      {{hflip_probability: 0.5, rotate_rad_max: 0.3, translate_max_x: 1.2, translate_max_y: 1.2, zoom_min: 0.92,
        zoom_max: 1.08}}
"""


@dataclass(frozen=True)
class Point:
    """One set of labels: how many, and the KPI error of the region All in crop pixels after each of the trainings."""

    seed: int
    order: str
    labels: int
    errors: list[float]

    @property
    def error(self) -> float:
        """The mean."""
        return float(np.mean(self.errors))


@dataclass(frozen=True, eq=False)
class Pool:
    """The faces of training subjects. `images` are the network's inputs, a batch at a time."""

    records: list[bytes]
    images: list[np.ndarray]
    points_FN2: np.ndarray
    kpi: list[Path]

    def __len__(self) -> int:
        return len(self.records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with gt/, images/, manifest.csv, kpi_subjects.txt")
    parser.add_argument("--sizes", type=int, nargs="+", help="labels (default: 50 100 200 400 800; tiny: 16 32 64)")
    parser.add_argument("--seeds", type=int, nargs="+", help="(default: 0 1 2; tiny: 0)")
    parser.add_argument("--repeats", type=int, default=1, help="trainings on the same labels (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="of a training (default: 1000; tiny: 60)")
    parser.add_argument("--width", type=int, default=12, help="of the network (default: %(default)s)")
    parser.add_argument("--side", type=int, default=48, help="of its input, pixels (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="JSON file to write after every training")
    parser.add_argument("--chart", type=Path, help="SVG file to draw")
    parser.add_argument("--draw", type=Path, help="don't train: show the results in this file")
    given = parser.parse_args()
    for name, large, tiny in (("sizes", [50, 100, 200, 400, 800], [16, 32, 64]), ("seeds", [0, 1, 2], [0])):
        setattr(given, name, getattr(given, name) or (large if given.data else tiny))
    given.steps = given.steps or (1000 if given.data else 60)
    drawn = [Point(**point) for point in read_json(given.draw)["points"]] if given.draw else []
    show(drawn or measure(given), given.chart)


def measure(given: argparse.Namespace) -> list[Point]:
    """Train everything, telling of each training as it ends."""
    print(f"{hardware()}; ResidualUNet:{given.width} at {given.side} px, {given.steps} steps of {BATCH}", flush=True)
    points: list[Point] = []
    with tempfile.TemporaryDirectory() as name:
        pool = make_pool(Path(name), given)
        print(f"{len(pool):,} faces to choose from\n\n| seed | order | labels | error, crop px | seconds |")
        print("|---|---|---|---|---|", flush=True)
        for seed in given.seeds:
            points += grow(pool, Path(name), given, seed, points)
    return points


def make_pool(folder: Path, given: argparse.Namespace) -> Pool:
    """Bring the faces in as the flow does, and read the training subjects' once."""
    workspace = Workspace(folder / "workspace")
    source, policy, num_keypoints = _source(given.data)
    conversion = converted(source, policy, workspace, num_keypoints=num_keypoints, ratio=ENLARGED)
    files = conversion.files[Split.TRAIN]
    batches = list(EvaluationBatches(files, spec_of(given, 0, num_keypoints), batch_size=64))
    true = [crop.to_crop(points) for b in batches for crop, points in zip(b.crops, b.points_BN2, strict=True)]
    return Pool(
        records=list(read_records(files)),
        images=[batch.images_BHWC for batch in batches],
        points_FN2=np.stack(true),
        kpi=conversion.files[Split.KPI],
    )


def _source(data: Path | None) -> tuple[Source, SplitPolicy, int]:
    if data is None:
        kpi = [f"multipie-like/{number:03d}" for number in (*range(79, 85), *range(164, 170), *range(250, 256))]
        source = RenderedSource(kind="rendered", name="rendered", subjects=60, images_per_subject=4)
        return source, SplitPolicy(kpi_subjects=kpi, validation_share=0), 68
    return *folder_source(data, data.name), 68


def spec_of(given: argparse.Namespace, seed: int, num_keypoints: int) -> ExperimentSpec:
    values = {"width": given.width, "side": given.side, "epochs": EPOCHS, "batch": BATCH, "enlarged": ENLARGED}
    return parse_spec(ExperimentSpec, SPEC.format(seed=seed, num_keypoints=num_keypoints, **values), "bench")


def grow(pool: Pool, folder: Path, given: argparse.Namespace, seed: int, before: list[Point]) -> list[Point]:
    """The two curves of one seed, which begin with the same labels and so with the same network."""
    permutation = np.random.default_rng(seed).permutation(len(pool))
    start = permutation[: given.sizes[0]]
    trained, points = start, []
    for number, size in enumerate(given.sizes):
        if number:
            trained = np.concatenate([trained, chosen(pool, trained, folder / OURS / "0", size - len(trained))])
        for order, faces in ((OURS, trained), (RANDOM, permutation[:size])):
            if number or order == OURS:
                points.append(train_and_measure(pool, faces, folder / order, given, seed, order))
            else:
                points.append(Point(**(asdict(points[-1]) | {"order": RANDOM})))
            if given.results:
                write_json(given.results, {"given": _given(given), "points": [asdict(p) for p in before + points]})
    return points


def chosen(pool: Pool, labelled: np.ndarray, directory: Path, count: int) -> np.ndarray:
    """The next faces by the network in `directory`."""
    signals = read_signals(describer(load_network(directory / "model.keras")), pool.images)
    rest = np.setdiff1d(np.arange(len(pool)), labelled)
    ranking = labelling_order(
        signals.of_faces(rest),
        signals.of_faces(labelled),
        count=count,
        conditions_F=conditions_of(signals.points_FN2[rest]),
        conditions_L=conditions_of(pool.points_FN2[labelled]),
    )
    return rest[ranking.faces]


def train_and_measure(
    pool: Pool, faces: np.ndarray, directory: Path, given: argparse.Namespace, seed: int, order: str
) -> Point:
    """Train on these faces, each as often as any other, and measure on the KPI subjects; so often as is asked."""
    errors = []
    for repeat in range(given.repeats):
        started, spec = time.perf_counter(), spec_of(given, seed + 1000 * repeat, pool.points_FN2.shape[1])
        errors.append(_trained_error(pool, faces, directory / str(repeat), given.steps, spec))
        seconds = time.perf_counter() - started
        print(f"| {seed} | {order} | {len(faces)} | {errors[-1]:.3f} | {seconds:.0f} |", flush=True)
    return Point(seed, order, len(faces), errors)


def _trained_error(pool: Pool, faces: np.ndarray, directory: Path, steps: int, spec: ExperimentSpec) -> float:
    for leftover in directory.glob("*"):
        leftover.unlink()
    records = directory / "train.tfrecords"
    repeated = np.resize(faces, steps // EPOCHS * BATCH)
    write_records(records, (pool.records[face] for face in repeated))
    result = train(spec, train_files=[records], validation_files=[], directory=directory)
    predict = predicting(describer(load_network(result.model_path)))
    return evaluate(predict, EvaluationBatches(pool.kpi, spec, batch_size=64), examples=0).error()


def _given(given: argparse.Namespace) -> dict[str, Any]:
    settings = {name: getattr(given, name) for name in ("sizes", "seeds", "repeats", "steps", "width", "side")}
    return settings | {"data": given.data.name if given.data else "rendered"}


def show(points: list[Point], chart: Path | None) -> None:
    """The curves of all seeds that are complete, what they save, and whether one order is ever worse."""
    sizes = sorted({point.labels for point in points})
    errors = {(point.seed, point.order, point.labels): point.error for point in points}
    seeds = [s for s in sorted({p.seed for p in points}) if all((s, RANDOM, n) in errors for n in sizes)]
    ours_SK, random_SK = (np.array([[errors[s, order, n] for n in sizes] for s in seeds]) for order in (OURS, RANDOM))
    print(f"\n{len(seeds)} seeds; error of the region All in crop px, means\n")
    print("| labels | by gain | random | difference, paired | seeds worse | random needs | saved |")
    print("|---|---|---|---|---|---|---|")
    for k, size in enumerate(sizes):
        cells = _comparison(sizes, ours_SK[:, k], random_SK, k)
        print(f"| {size} | {' | '.join(cells)} |")
    if chart:
        curves = {OURS: ours_SK, RANDOM: random_SK}
        drawn = curve_chart(sizes, curves, label="Error against labels", y_label="KPI error, crop px")
        write_bytes(chart, drawn.encode())


def _comparison(sizes: list[int], ours_S: np.ndarray, random_SK: np.ndarray, k: int) -> list[str]:
    """Cells of one row: both means, their paired difference with its deviation over seeds, and labels saved."""
    difference_S = ours_S - random_SK[:, k]
    spread = f" ± {difference_S.std(ddof=1):.3f}" if len(ours_S) > 1 else ""
    needed = labels_for_error(sizes, random_SK.mean(axis=0), ours_S.mean())
    return [
        f"{ours_S.mean():.3f}",
        f"{random_SK[:, k].mean():.3f}",
        f"{difference_S.mean():+.3f}{spread}",
        str((difference_S > 0).sum()),
        f"more than {sizes[-1]}" if needed is None else f"{needed:.0f}",
        f"more than {1 - sizes[k] / sizes[-1]:.0%}" if needed is None else f"{1 - sizes[k] / needed:.0%}",
    ]


if __name__ == "__main__":
    main()
