"""How often drift is seen where there is some, and where there is none.

    python bench/drift.py --config examples/real-faces.yaml
    python bench/drift.py --config examples/demo.yaml --faces 200 --trials 20

Takes the current model of a finished project, and the faces that it was not trained on. Each trial is a day of a
device: hours of faces that are drawn with replacement, as they are or changed. `ours` is the rule of the flow `drift`
(lower bound of the stability index, for hours that may show the same people); `plain` alarms where the bare index of
any signal is above 0.2, as is customary. Without a change every alarm is a false one.

- independent: every face is drawn by itself. Three people an hour: a device sees few people, again and again.
- changed pictures: blurred, darkened, a square of the face covered; turned heads and single sets are chosen, not
  made.

The defaults take ten minutes, most of it predictions.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from hardware import hardware

from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.drift_client import Profile
from model.drift import Shift, shift_of, stability_index
from model.pipeline import EvaluationBatch, evaluation_batches
from model.pose import yaw_degrees
from schemas.config import DriftSettings, load_config
from schemas.experiment import ExperimentSpec
from schemas.records import Split
from schemas.yamlspec import load_spec
from tasks.champion import current_model
from tasks.drift.reference import Reference, reference_of
from tasks.fleet.material import fetch_files, find_conversion
from tasks.tracking import ONNX_ARTIFACT, SPEC_ARTIFACT
from tasks.workspace import Workspace

HOURS, PEOPLE_AN_HOUR = 24, 3
PLAIN_BOUND = 0.2
TURNED_DEGREES = 20
COVERED = 26  # side of the square, network-input pixels


def blurred(sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda crop_HW: cv2.GaussianBlur(crop_HW, (0, 0), sigma)


def darkened(crop_HW: np.ndarray) -> np.ndarray:
    return crop_HW * 0.4


def covered(crop_HW: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(int(crop_HW.sum()))
    x, y = rng.integers(10, 70 - COVERED, 2)
    changed_HW = crop_HW.copy()
    changed_HW[y : y + COVERED, x : x + COVERED] = rng.uniform(0, 255)
    return changed_HW


CHANGES = {"blurred, sigma 1 px": blurred(1.0), "darkened": darkened, "covered": covered}


class Device:
    """Days of a device: signals of faces, from which hours are drawn."""

    def __init__(self, reference: Reference, *, trials: int, faces: int, min_index: float, confidence: float) -> None:
        self.profile, self._reference = Profile(str(reference.profile)), reference
        self._trials, self._faces = trials, faces
        self._min_index, self._confidence = min_index, confidence

    def report(self, what: str, values: dict[str, np.ndarray], draw: Callable[[np.random.Generator], list]) -> None:
        rng = np.random.default_rng(0)
        ours, plain, worth, furthest = 0, 0, [], []
        for _ in range(self._trials):
            hours = draw(rng)
            shifts = {name: self._shift(name, values[name], hours) for name in self._reference.counts}
            ours += any(shift.low > self._min_index for shift, _ in shifts.values())
            plain += any(bare > PLAIN_BOUND for _, bare in shifts.values())
            worth.append(min(shift.independent for shift, _ in shifts.values()))
            furthest.append(max(shifts, key=lambda name: shifts[name][0].index))
        names = sorted(set(furthest), key=furthest.count, reverse=True)
        print(
            f"{what:<34} {self._faces:6,} faces, worth {np.median(worth):6,.0f}: ours {ours / self._trials:4.0%}, "
            f"plain {plain / self._trials:4.0%}; furthest: {names[0]}"
        )

    def _shift(self, name: str, values_F: np.ndarray, hours: list[np.ndarray]) -> tuple[Shift, float]:
        edges, expected_B = self.profile.edges[name], np.array(self._reference.counts[name])
        places_F = np.searchsorted(edges, values_F, side="right")
        counts_HB = np.array([np.bincount(places_F[hour], minlength=len(edges) + 1) for hour in hours])
        independent = self._reference.independent[name]
        shift = shift_of(expected_B, counts_HB, independent=independent, confidence=self._confidence)
        found_B = counts_HB.sum(axis=0) + 0.5
        bare = float(stability_index(expected_B / expected_B.sum(), found_B / found_B.sum()))
        return shift, bare

    def independently(self, pool: np.ndarray) -> Callable[[np.random.Generator], list]:
        return lambda rng: np.array_split(rng.choice(pool, self._faces), HOURS)

    def few_people(self, subjects: list[str]) -> Callable[[np.random.Generator], list]:
        person_F = np.unique(subjects, return_inverse=True)[1]

        def draw(rng: np.random.Generator) -> list[np.ndarray]:
            people_HP = rng.integers(0, person_F.max() + 1, (HOURS, PEOPLE_AN_HOUR))
            pools = [np.flatnonzero(np.isin(person_F, people_P)) for people_P in people_HP]
            return [rng.choice(pool, max(1, self._faces // HOURS)) for pool in pools]

        return draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="configuration of a finished project")
    parser.add_argument("--faces", type=int, nargs="+", default=[100, 500, 2000], help="a day")
    parser.add_argument("--trials", type=int, default=100)
    options = parser.parse_args()
    print(hardware())
    config = load_config(options.config)
    workspace = Workspace(Path(config.workspace))
    model = current_model(config.tracking, workspace)
    if model is None:
        raise SystemExit("no registered model: run the flow retrain first")
    reference = reference_of(model.name, model.version, config.tracking, workspace)
    folder, snapshot = fetch_files(model.name, model.version, config.tracking, workspace)
    spec = load_spec(ExperimentSpec, folder / SPEC_ARTIFACT)
    files = find_conversion(snapshot, spec, workspace).files
    batches = list(evaluation_batches([*files[Split.VALIDATION], *files[Split.KPI]], spec))
    measure(OnnxRuntimeEngine(folder / ONNX_ARTIFACT, threads=os.cpu_count() or 1), batches, reference, options)


def measure(
    engine: OnnxRuntimeEngine, batches: list[EvaluationBatch], reference: Reference, options: argparse.Namespace
) -> None:
    settings = DriftSettings()
    profile = Profile(str(reference.profile))
    images_BHWC = np.concatenate([batch.images_BHWC for batch in batches])
    subjects = [subject for batch in batches for subject in batch.subjects]
    sets = np.array([name for batch in batches for name in batch.sets])
    yaw_F = yaw_degrees(np.concatenate([batch.points_BN2 for batch in batches]))
    everybody, start = np.arange(len(images_BHWC)), time.perf_counter()
    values = {"": profile.values(*engine.predict(images_BHWC))}
    for what, change in CHANGES.items():
        changed_BHWC = np.stack([change(image[..., 0])[..., None] for image in images_BHWC])
        values[what] = profile.values(*engine.predict(changed_BHWC))
    print(f"{len(images_BHWC)} faces, predicted in {time.perf_counter() - start:.0f} s; {options.trials} days each")
    for faces in options.faces:
        device = Device(
            reference,
            trials=options.trials,
            faces=faces,
            min_index=settings.min_index,
            confidence=settings.confidence,
        )
        device.report("no change, independent", values[""], device.independently(everybody))
        device.report(f"no change, {PEOPLE_AN_HOUR} people an hour", values[""], device.few_people(subjects))
        for what in CHANGES:
            device.report(what, values[what], device.independently(everybody))
        if yaw_F is not None:
            turned = np.flatnonzero(np.abs(yaw_F) > TURNED_DEGREES)
            device.report(f"turned by more than {TURNED_DEGREES} degrees", values[""], device.independently(turned))
        for name in np.unique(sets):
            device.report(f"only the set {name}", values[""], device.independently(np.flatnonzero(sets == name)))


if __name__ == "__main__":
    main()
