"""Twelve held-out faces of each set, from the best to the worst, drawn; and what the confidence is worth, as a chart.

    python bench/model_pictures.py --data FACES --spec runs/a/spec.yaml --out pictures

`pictures/<set>.png` has the faces at equal ranks of their mean error, true points in one colour, the network's in
another, the error in crop pixels above. `pictures/<set>-reliability.svg` is there for sets with occluded points.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from model_accuracy import SETS, bring_in

from deploy.predictor import load_predictor
from model.confidence import confidence_quality
from model.evaluation import evaluate
from model.evaluation_charts import reliability_chart
from model.figures import draw_comparison
from model.pipeline import EvaluationBatches
from model.training import MODEL_FILE
from schemas.experiment import ExperimentSpec
from schemas.records import Flag, Split
from schemas.yamlspec import load_spec

FACES, COLUMNS = 12, 4
SCALE = 4
BAND_PX = 22
WHITE = (255, 255, 255)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the folders of faces")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), help="(default: all)")
    parser.add_argument("--workspace", type=Path, default=Path("workspace/bench"), help="(default: %(default)s)")
    parser.add_argument("--spec", type=Path, required=True, help="of the network, which lies beside it")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    given = parser.parse_args()
    spec = load_spec(ExperimentSpec, given.spec)
    predict = load_predictor(given.spec.parent / MODEL_FILE).predict
    given.out.mkdir(parents=True, exist_ok=True)
    for name, conversion in bring_in(given.data, given.workspace, spec, sets=given.sets):
        files = conversion.files[Split.KPI]
        number = conversion.result["splits"][Split.KPI]["records"]
        found = evaluate(predict, EvaluationBatches(files, spec), examples=number)
        ranked = [*found.best, *reversed(found.worst)]
        chosen = [ranked[round(rank)] for rank in np.linspace(0, len(ranked) - 1, FACES)]
        drawn = [_captioned(draw_comparison(face, scale=SCALE), f"{face.error_crop_px:.2f} px") for face in chosen]
        rows = [np.hstack(drawn[start : start + COLUMNS]) for start in range(0, FACES, COLUMNS)]
        cv2.imwrite(str(given.out / f"{name}.png"), np.vstack(rows))
        if (found.flags_FN == Flag.OCCLUDED).any():
            quality = confidence_quality(found.confidence_FN, found.flags_FN, found.subjects)
            chart = reliability_chart([asdict(group) for group in quality.bins])
            (given.out / f"{name}-reliability.svg").write_text(chart)
        print(f"{name}: {len(found)} faces, {found.error():.2f} crop px", flush=True)


def _captioned(image: np.ndarray, text: str) -> np.ndarray:
    band = np.zeros((BAND_PX, image.shape[1], 3), np.uint8)
    cv2.putText(band, text, (6, BAND_PX - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.5, WHITE, 1, cv2.LINE_AA)
    return np.vstack([band, image])


if __name__ == "__main__":
    main()
