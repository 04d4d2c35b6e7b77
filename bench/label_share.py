"""Error against the share of labels, with and without ELT on the rest, for the same time each.

    python bench/label_share.py --data FACES --out runs/shares --minutes 15 --chart shares.svg

As table 6 of Honari et al. 2018: of the training subjects of w300, ytf68 and w300occ a share keeps its labels. The
others' faces take part by equivariance alone (ELT), or not at all. With all labels ELT acts on the labelled faces.
A share's faces count as many times as make an epoch as long as that of all faces, so that all trainings write as few
models. What is in `--out` already is not trained again. Six trainings.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import tensorflow as tf
from labelling_curve import curve_chart
from model_accuracy import bring_in
from timed_training import Record, Work, add_arguments, measured, trained_for

from model.shards import read_records
from model.tfrecords import write_records
from schemas.augmentation import SpatialAugmentation
from schemas.experiment import EltLoss, ExperimentSpec
from schemas.records import Split
from schemas.storage import write_bytes
from schemas.yamlspec import load_spec
from tasks.convert import Conversion

SPEC = Path(__file__).parent.parent / "examples" / "real-faces-spec.yaml"
SHARES = (0.05, 0.2, 1.0)
MOVES = SpatialAugmentation(rotate_rad_max=0.35, translate_max_x=8, translate_max_y=8, zoom_min=0.9, zoom_max=1.1)
"""Honari et al. 2018: 20 to 30 degrees, a tenth of the side, a tenth of the size."""
ALONE, WITH_ELT = "alone", "with ELT"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the labels (default: 0.05 0.2 1)")
    parser.add_argument("--chart", type=Path, help="SVG file to draw: the error on w300")
    given = parser.parse_args()
    spec = load_spec(ExperimentSpec, SPEC)
    sets = dict(bring_in(given.data, given.workspace, spec))
    works = {
        f"{share:.0%}, {kind}": prepared(spec, sets, share, kind, given.out)
        for share in given.shares
        for kind in (ALONE, WITH_ELT)
    }
    record = Record(given, lambda: works)
    results = {
        name: record.result(name, partial(trained, given.out, record.epochs[name], name, work, sets))
        for name, work in works.items()
    }
    show(results)
    if given.chart:
        write_bytes(given.chart, chart(results, given.shares).encode())


def trained(out: Path, epochs: int, name: str, work: Work, sets: Mapping[str, Conversion]) -> dict[str, float]:
    folder = out / name.replace(", ", "-").replace(" ", "-")
    cost = trained_for(epochs, work, folder)
    faces = {"labelled faces": len(set(read_records(work.files)))}
    return faces | measured(folder, work.spec, sets) | cost


def show(results: Mapping[str, Mapping[str, float]]) -> None:
    columns = list(next(iter(results.values())))
    print(f"\n| labels | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, values in results.items():
        print(f"| {name} | {' | '.join(f'{values[column]:.5g}' for column in columns)} |")


def chart(results: Mapping[str, Mapping[str, float]], shares: Sequence[float]) -> str:
    rows = {kind: [results[f"{share:.0%}, {kind}"] for share in shares] for kind in (ALONE, WITH_ELT)}
    curves = {kind: np.array([[one["w300"] for one in row]]) for kind, row in rows.items()}
    faces = [one["labelled faces"] for one in rows[ALONE]]
    return curve_chart(faces, curves, label="Error against labels", y_label="w300, crop px")


def prepared(spec: ExperimentSpec, sets: Mapping[str, Conversion], share: float, kind: str, out: Path) -> Work:
    """What to train; its shards are written below `out`."""
    labelled, rest = (out / f"{name}-{share:g}.tfrecords" for name in ("labelled", "rest"))
    out.mkdir(parents=True, exist_ok=True)
    files = training_files(sets)
    if not rest.exists():
        write_records(labelled, list(of_subjects(files, share, kept=True)) * round(1 / share))
        write_records(rest, of_subjects(files, share, kept=False))
    if kind == ALONE:
        return Work(spec, [labelled])
    elt = EltLoss(enable_elt_loss=True, modulus_spatial_augmentation=MOVES)
    if share < 1:
        elt = elt.model_copy(update={"unlabelled_sets": "rest"})
    loss = spec.loss.model_copy(update={"elt_loss_info": elt})
    return Work(spec.model_copy(update={"loss": loss}), [labelled], [rest] if share < 1 else [])


def training_files(sets: Mapping[str, Conversion]) -> list[Path]:
    return [file for found in sets.values() for file in found.files[Split.TRAIN]]


def of_subjects(files: Sequence[Path], share: float, *, kept: bool) -> Iterator[bytes]:
    """The records of the subjects that are in the share, or of those that are not; the same subjects every time, and
    those of a smaller share are among those of a larger one."""
    for record in read_records(files):
        subject = tf.train.Example.FromString(record).features.feature["image/subject"].bytes_list.value[0]
        place = int.from_bytes(sha256(subject).digest()[:8], "big") / 2**64
        if (place < share) == kept:
            yield record


if __name__ == "__main__":
    main()
