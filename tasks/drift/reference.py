"""What a model is expected to see: a profile for its devices, and the counts of faces that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deploy.drift_client import Profile
from schemas.config import Tracking
from schemas.experiment import ExperimentSpec
from schemas.records import Split
from schemas.storage import sha256_file
from schemas.yamlspec import load_spec
from tasks.convert import Conversion
from tasks.fleet.material import fetch_files, find_conversion
from tasks.reuse import reuse_or_run, step_key
from tasks.tracking import ONNX_ARTIFACT, SPEC_ARTIFACT
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from deploy.builders.base import Predictions

PROFILE = "profile.npz"
REFERENCES = "references"


@dataclass(frozen=True)
class Reference:
    """What a version is expected to see.

    Attributes:
        version: `fpenet/3`.
        profile: file for the devices.
        digest: SHA-256 of it.
        counts: signal -> faces in each bin.
        independent: signal -> how many independent faces they are worth: some subjects are in them more than once.
        between: signal -> share of its variance that is between subjects (`model.drift.between_subjects`).
    """

    version: str
    profile: Path
    digest: str
    counts: dict[str, list[int]]
    independent: dict[str, float]
    between: dict[str, float]


def reference_of(name: str, version: str, tracking: Tracking, workspace: Workspace) -> Reference:
    """The reference of a registered version, made once: its training faces give the shapes, its ONNX file's
    predictions of the validation and KPI faces the bins and the counts.

    Raises:
        TrackingError: MLflow can't be reached, has no such version, or not its files.
        SourceEmptyError: this workspace does not have the faces of its snapshot.
    """
    folder, snapshot = fetch_files(name, version, tracking, workspace)
    spec = load_spec(ExperimentSpec, folder / SPEC_ARTIFACT)
    conversion = find_conversion(snapshot, spec, workspace)
    onnx, shards = folder / ONNX_ARTIFACT, {split: conversion.hashes(split) for split in Split}
    model = f"{name}/{version}"
    key = step_key("drift", code="tasks.drift.reference", model=model, onnx=sha256_file(onnx), shards=shards)
    output = reuse_or_run(
        workspace.drift / REFERENCES, key, lambda place: make_reference(place, onnx, spec, conversion, model)
    )
    profile = output.directory / PROFILE
    told = {name: output.result[name] for name in ("counts", "independent", "between")}
    return Reference(model, profile, sha256_file(profile), **told)


def make_reference(
    directory: Path, onnx: Path, spec: ExperimentSpec, conversion: Conversion, model: str
) -> dict[str, Any]:
    """Write the profile into `directory`; return `counts`, `independent` and `between` of a `Reference`."""
    from deploy.drift_profile import write_profile
    from model.drift import between_subjects, independent_faces
    from model.shape_model import complex_shapes, fit_shape_model

    shapes = fit_shape_model(complex_shapes(_training_points(conversion, spec)))
    seen, subjects = _held_out_predictions(onnx, conversion, spec)
    profile = write_profile(directory / PROFILE, shapes, seen, model=model)
    by_subject = _counts_by_subject(profile, seen, subjects)
    return {
        "counts": {name: counts_SB.sum(axis=0).tolist() for name, counts_SB in by_subject.items()},
        "independent": {name: independent_faces(counts_SB) for name, counts_SB in by_subject.items()},
        "between": {name: between_subjects(counts_SB) for name, counts_SB in by_subject.items()},
    }


def _training_points(conversion: Conversion, spec: ExperimentSpec) -> np.ndarray:
    from model.pipeline import evaluation_batches

    batches = evaluation_batches(conversion.files[Split.TRAIN], spec)
    return np.concatenate([batch.points_BN2 for batch in batches])


def _held_out_predictions(onnx: Path, conversion: Conversion, spec: ExperimentSpec) -> tuple[Predictions, list[str]]:
    """Predictions of the validation and KPI faces, and whose they are."""
    from deploy.builders.base import Predictions
    from deploy.builders.onnxruntime import OnnxRuntimeEngine
    from model.pipeline import evaluation_batches

    engine, found, subjects = OnnxRuntimeEngine(onnx), [], []
    for batch in evaluation_batches([*conversion.files[Split.VALIDATION], *conversion.files[Split.KPI]], spec):
        found.append(engine.predict(batch.images_BHWC))
        subjects += batch.subjects
    return Predictions(*(np.concatenate(parts) for parts in zip(*found, strict=True))), subjects


def _counts_by_subject(profile: Profile, seen: Predictions, subjects: list[str]) -> dict[str, np.ndarray]:
    """Signal -> counts (S, B); each face without a subject counts as somebody else."""
    values = profile.values(seen.keypoints_BN2, seen.confidence_BN)
    people = [subject or f" {number}" for number, subject in enumerate(subjects)]
    rows_F, count = np.unique(people, return_inverse=True)[1], len(set(people))
    counts = {}
    for name, edges in profile.edges.items():
        counts_SB = np.zeros((count, len(edges) + 1), np.int64)
        np.add.at(counts_SB, (rows_F, np.searchsorted(edges, values[name], side="right")), 1)
        counts[name] = counts_SB
    return counts
