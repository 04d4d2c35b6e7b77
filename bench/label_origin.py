"""Where a set's labels count from, as a network shows that learnt them mirrored and not.

    python bench/model_accuracy.py train --data FACES --spec examples/real-faces-spec.yaml --as-they-are --out runs/a
    python bench/label_origin.py --data FACES --spec runs/a/spec.yaml

Labels that stand a constant to the right of what they mean stand as far to the left of it in the mirrored picture: a
network that was trained on both learns the middle. So the mean distance of the labels from its keypoints is what the
labels are off along x, in source pixels, if it was trained with `hflip_probability: 0.5` on the labels as they are.
On training faces it is too small, for these are known by heart in part. Along y nothing is mirrored, and nothing
shows; but a file that starts at 1 does so along both axes. The last column is of the keypoints in the mirrored
picture, mirrored back: the same, if the network treats both sides alike.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from model_accuracy import bring_in

from model.bootstrap import Estimate, estimates_of
from model.pipeline import EvaluationBatches
from model.training import MODEL_FILE
from model.weights import load_network
from schemas.experiment import ExperimentSpec
from schemas.layouts import layout
from schemas.records import Split
from schemas.yamlspec import load_spec

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the folders of faces")
    parser.add_argument("--spec", type=Path, required=True, help="of the network, which lies beside it")
    parser.add_argument(
        "--workspace", type=Path, default=Path("workspace/bench-origin"), help="(default: %(default)s)"
    )
    given = parser.parse_args()
    spec = load_spec(ExperimentSpec, given.spec)
    network = load_network(given.spec.parent / MODEL_FILE)
    print("| faces | number | labels right of the keypoints, px | below, px | right of the mirrored picture's, px |")
    print("|---|---|---|---|---|")
    for name, conversion in bring_in(given.data, given.workspace, spec, shifted=False):
        for split in (Split.TRAIN, Split.KPI):
            batches = EvaluationBatches(conversion.files[split], spec, batch_size=BATCH)
            found = offsets(network, batches, layout(spec.num_keypoints).flip)
            cells = " | ".join(f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f})" for one in found[1])
            print(f"| {name} {split.value} | {found[0]} | {cells} |", flush=True)


def offsets(network, batches: EvaluationBatches, flip: tuple[int, ...]) -> tuple[int, list[Estimate]]:
    """Number of faces, and how far labels stand right of and below keypoints, and right of mirrored ones, (F, 3)."""
    rows, subjects = [], []
    for batch in batches:
        images_BHWC = np.asarray(batch.images_BHWC)
        plain_BN2 = network(images_BHWC, training=False)[0].numpy()
        mirrored_BN2 = network(images_BHWC[:, :, ::-1], training=False)[0].numpy()[:, list(flip)]
        mirrored_BN2[..., 0] = images_BHWC.shape[2] - 1 - mirrored_BN2[..., 0]
        for crop, true_N2, plain_N2, mirrored_N2 in zip(
            batch.crops, batch.points_BN2, plain_BN2, mirrored_BN2, strict=True
        ):
            off_2, off_mirrored_2 = (
                (true_N2 - crop.to_frame(points)).mean(axis=0) for points in (plain_N2, mirrored_N2)
            )
            rows.append([*off_2, off_mirrored_2[0], 1])
        subjects += batch.subjects
    return len(rows), estimates_of(subjects, np.array(rows), lambda sums_DX: sums_DX[:, :3] / sums_DX[:, 3:])


if __name__ == "__main__":
    main()
