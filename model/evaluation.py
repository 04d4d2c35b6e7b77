"""Evaluation on the KPI set: what a model predicts for every face, each counted once.

Legend: B batch, F faces of the whole set, H W C the network's input, N keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from model.region_error import FaceErrors, Points, Unit, face_errors, join_faces, region_errors
from schemas.errors import InputError, ModelFileError
from schemas.geometry import beyond_pixel_centres

if TYPE_CHECKING:
    import keras

    from model.pipeline import EvaluationBatch

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Images (B, H, W, C) float32 0..255 -> keypoints (B, N, 2) in input pixels and confidences (B, N)."""


@dataclass(frozen=True, eq=False)
class ExampleFace:
    """A face to look at: the network's input (H, W, C) uint8, points in its pixels, mean error in crop pixels."""

    name: str
    subject: str
    image_HWC: np.ndarray
    true_N2: np.ndarray
    predicted_N2: np.ndarray
    flags_N: np.ndarray
    error_crop_px: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model predicted for every face of a set.

    Attributes:
        names, subjects, sets: F strings; '' where unknown.
        boxes_F4: x, y, width, height of the face boxes in source pixels.
        true_FN2, predicted_FN2: float32, in pixels of the network's input.
        flags_FN: int8, `schemas.records.Flag`.
        confidence_FN: float32.
        input_size: side of the network's input in pixels.
        errors: distances of the F faces in every unit.
        offsets_F2: of each face how far its true points lie right of and below the predicted ones, on average over
            its points, in source pixels.
        best, worst: a few faces, the most extreme first.
    """

    names: tuple[str, ...]
    subjects: tuple[str, ...]
    sets: tuple[str, ...]
    boxes_F4: np.ndarray
    true_FN2: np.ndarray
    predicted_FN2: np.ndarray
    flags_FN: np.ndarray
    confidence_FN: np.ndarray
    input_size: int
    errors: FaceErrors
    offsets_F2: np.ndarray
    best: tuple[ExampleFace, ...]
    worst: tuple[ExampleFace, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_keypoints(self) -> int:
        return self.true_FN2.shape[1]

    @property
    def unreachable_share(self) -> float:
        """Share of true points outside the pixel centres of the input (`schemas.geometry.beyond_pixel_centres`)."""
        return float(beyond_pixel_centres(self.true_FN2, self.input_size).mean())

    def error(self, unit: Unit = Unit.CROP) -> float:
        """Mean over all points."""
        return region_errors(self.errors, unit, Points.ALL)["All"]


def keras_predict(network: keras.Model) -> Predict:
    """How `evaluate` asks a Keras network."""

    def predict(images_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        keypoints_BN2, confidence_BN, *_ = network.predict_on_batch(images_BHWC)
        return keypoints_BN2, confidence_BN

    return predict


def evaluate(
    predict: Predict,
    batches: Iterable[EvaluationBatch],
    *,
    examples: int = 6,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Run `predict` over all batches; keep `examples` best and worst faces, and tell `progress` how many are done.

    Raises:
        InputError: there is no face.
        ModelFileError: the model gives another number of keypoints, or something that is not a number.
    """
    parts: dict[str, list[Any]] = {}
    shown: list[ExampleFace] = []
    input_size = done = 0
    for batch in batches:
        input_size = batch.images_BHWC.shape[1]
        part = _evaluate_batch(predict, batch)
        shown = _extremes([*shown, *_faces_of(batch, part)], examples)
        for key, value in part.items():
            parts.setdefault(key, []).append(value)
        done += len(batch)
        if progress is not None:
            progress(done)
    if not parts:
        raise InputError("the evaluation set holds no face; check the KPI subjects and the set ids in the spec")
    errors = join_faces(parts.pop("errors"))
    count = min(examples, (len(shown) + 1) // 2)
    return Evaluation(
        **{key: _join(values) for key, values in parts.items()},
        errors=errors,
        input_size=input_size,
        best=tuple(shown[:count]),
        worst=tuple(reversed(shown[count:])),
    )


def _evaluate_batch(predict: Predict, batch: EvaluationBatch) -> dict[str, Any]:
    predicted_BN2, confidence_BN = (np.asarray(output, np.float32) for output in predict(batch.images_BHWC))
    if predicted_BN2.shape != batch.points_BN2.shape:
        raise ModelFileError(
            f"the model predicts {predicted_BN2.shape[1]} keypoints, the set has {batch.points_BN2.shape[1]}; "
            "use the spec that the model was trained with"
        )
    finite_B = np.isfinite(predicted_BN2).all(axis=(1, 2)) & np.isfinite(confidence_BN).all(axis=1)
    if bad := np.flatnonzero(~finite_B).tolist():
        raise ModelFileError(f"the model predicts something that is not a number for {batch.names[bad[0]]}")
    crops = batch.crops
    predicted_px = np.stack(
        [crop.to_frame(p.astype(np.float64)) for crop, p in zip(crops, predicted_BN2, strict=True)]
    )
    return {
        "names": batch.names,
        "subjects": batch.subjects,
        "sets": batch.sets,
        "boxes_F4": batch.boxes_B4,
        "true_FN2": np.stack([crop.to_crop(p) for crop, p in zip(crops, batch.points_BN2, strict=True)]),
        "predicted_FN2": predicted_BN2,
        "flags_FN": batch.flags_BN,
        "confidence_FN": confidence_BN,
        "errors": face_errors(batch.points_BN2, predicted_px, batch.flags_BN, batch.subjects),
        "offsets_F2": (batch.points_BN2 - predicted_px).mean(axis=1),
    }


def _faces_of(batch: EvaluationBatch, part: dict[str, Any]) -> list[ExampleFace]:
    return [
        ExampleFace(
            name=batch.names[i],
            subject=batch.subjects[i],
            image_HWC=np.clip(np.rint(batch.images_BHWC[i]), 0, 255).astype(np.uint8),
            true_N2=part["true_FN2"][i],
            predicted_N2=part["predicted_FN2"][i],
            flags_N=batch.flags_BN[i],
            error_crop_px=float(part["errors"].crop_px_BK[i].mean()),
        )
        for i in range(len(batch))
    ]


def _extremes(faces: list[ExampleFace], number: int) -> list[ExampleFace]:
    """Sorted by error; of more than twice `number`, only so many at either end."""
    faces = sorted(faces, key=lambda face: (face.error_crop_px, face.name))
    return faces if len(faces) <= 2 * number else faces[:number] + faces[len(faces) - number :]


def _join(values: list[Any]) -> Any:
    return tuple(chain.from_iterable(values)) if isinstance(values[0], tuple) else np.concatenate(values)
