"""Error against the share of labels, with and without ELT on the rest, for the same time each.

    python bench/label_share.py --data ../shared/data --out runs/shares --minutes 15

As table 6 of Honari et al. 2018: of the training subjects of w300, ytf68 and w300occ a share keeps its labels. The
others' faces take part by equivariance alone (ELT), or not at all. With all labels ELT acts on the labelled faces.
What is in `--out` already is not trained again. Six trainings.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import tensorflow as tf
from model_accuracy import bring_in
from timed_training import add_arguments, measured, trained_for

from model.tfrecords import write_records
from schemas.augmentation import SpatialAugmentation
from schemas.experiment import EltLoss, ExperimentSpec
from schemas.records import Split
from schemas.storage import read_json, write_json
from schemas.yamlspec import load_spec

SPEC = Path(__file__).parent.parent / "examples" / "real-faces-spec.yaml"
SHARES = (0.05, 0.2, 1.0)
MOVES = SpatialAugmentation(rotate_rad_max=0.35, translate_max_x=8, translate_max_y=8, zoom_min=0.9, zoom_max=1.1)
"""Honari et al. 2018: 20 to 30 degrees, a tenth of the side, a tenth of the size."""
RESULT = "result.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the labels (default: 0.05 0.2 1)")
    given = parser.parse_args()
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, {given.minutes:g} minutes each", flush=True)
    rows = []
    for share in given.shares:
        for elt in (False, True):
            folder = given.out / f"{share:g}{'-elt' if elt else ''}"
            if not (folder / RESULT).exists():
                write_json(folder / RESULT, trained(given, share, elt, folder))
            rows.append((f"{share:.0%}{' and ELT' if elt else ''}", read_json(folder / RESULT)))
            print(*rows[-1], flush=True)
    columns = list(rows[0][1])
    print(f"\n| labels | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, values in rows:
        print(f"| {name} | {' | '.join(f'{values[column]:.5g}' for column in columns)} |")


def trained(given: argparse.Namespace, share: float, elt: bool, folder: Path) -> dict[str, float]:
    """Train, measure, and tell both."""
    spec = load_spec(ExperimentSpec, SPEC)
    if elt:
        settings = EltLoss(enable_elt_loss=True, modulus_spatial_augmentation=MOVES)
        if share < 1:
            settings = settings.model_copy(update={"unlabelled_sets": "rest"})
        loss = spec.loss.model_copy(update={"elt_loss_info": settings})
        spec = spec.model_copy(update={"loss": loss})
    sets = dict(bring_in(given.data, given.workspace, spec))
    files = [file for found in sets.values() for file in found.files[Split.TRAIN]]
    labelled, rest = folder / "labelled.tfrecords", folder / "rest.tfrecords"
    folder.mkdir(parents=True, exist_ok=True)
    faces = write_records(labelled, of_subjects(files, share, kept=True))
    write_records(rest, of_subjects(files, share, kept=False))
    unlabelled = [rest] if elt and share < 1 else []
    cost = trained_for(given.minutes, spec, [labelled], folder, unlabelled)
    return {"faces": faces, **measured(folder, spec, sets), **cost}


def of_subjects(files: Iterable[Path], share: float, *, kept: bool) -> Iterator[bytes]:
    """The records of the subjects that are in the share, or of those that are not; the same subjects every time, and
    those of a smaller share are among those of a larger one."""
    for record in tf.data.TFRecordDataset([str(file) for file in files]).as_numpy_iterator():
        subject = tf.train.Example.FromString(record).features.feature["image/subject"].bytes_list.value[0]
        place = int.from_bytes(sha256(subject).digest()[:8], "big") / 2**64
        if (place < share) == kept:
            yield record


if __name__ == "__main__":
    main()
