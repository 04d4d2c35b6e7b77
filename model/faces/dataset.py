"""A folder of rendered photographs with Sloth/TAO ground truth, as an annotation team would hand it over.

    images/079_01_01_051_07.png                subject, session, recording, camera, illumination
    gt/multipie-like-kpi/079.json              one file per subject; KPI subjects are a set of their own
    gt/multipie-like/001.json                  written when the subject's photographs are there

1,600 photographs take about a minute on two cores.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from model.faces.capture import KPI_SUBJECTS, Capture
from model.faces.sitting import Sitting
from schemas.geometry import tight_square
from schemas.layouts import FACE_SIZES
from schemas.multipie import SUBJECT_PATTERN, camera_label
from schemas.records import Flag
from schemas.sloth import face_to_sloth, image_entry
from schemas.sources import SubjectRule
from schemas.storage import canonical_json, write_bytes

DATASET = "multipie-like"
KPI_SET, OTHER_SET = f"{DATASET}-kpi", DATASET
SUBJECT_RULE = SubjectRule(dataset=DATASET, pattern=SUBJECT_PATTERN)
"""Finds `multipie-like/079` from a file name."""

_DECIMALS = 3
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 4]

Progress = Callable[[int, int], None]
"""Called with photographs done and photographs in all."""


@dataclass(frozen=True)
class _Order:
    """What determines the bytes of a dataset, beside the code that draws and writes it, NumPy and OpenCV."""

    subjects: tuple[str, ...]
    images_per_subject: int
    num_keypoints: int
    seed: int
    color: Literal["gray", "rgb"]

    @property
    def num_images(self) -> int:
        return len(self.subjects) * self.images_per_subject


def default_subjects(count: int) -> tuple[str, ...]:
    """`count` subject numbers, sorted: all of Multi-PIE's KPI subjects, the rest from 001 up.

    Raises:
        ValueError: fewer than the KPI subjects, or more than three digits can name.
    """
    if not len(KPI_SUBJECTS) <= count < 1000:
        raise ValueError(f"the number of subjects must be {len(KPI_SUBJECTS)} to 999, not {count}")
    others = [f"{number:03d}" for number in range(1, 1000) if f"{number:03d}" not in KPI_SUBJECTS]
    return tuple(sorted([*KPI_SUBJECTS, *others[: count - len(KPI_SUBJECTS)]]))


def render_dataset(
    directory: Path,
    *,
    subjects: int | Sequence[str] = 80,
    images_per_subject: int = 20,
    num_keypoints: int = 80,
    seed: int = 0,
    color: Literal["gray", "rgb"] = "gray",
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Render photographs of `subjects` into `directory`: a new one, or what a killed call with equal arguments left.

    Equal arguments give equal bytes, whatever `workers` is; the pictures do not depend on `num_keypoints`. Subjects
    that have a ground-truth file are done and are not rendered again.

    Args:
        subjects: three-digit numbers, or how many (`default_subjects`).
        workers: processes; None takes one per core this process may use.

    Raises:
        ValueError: an argument out of range.
        StorageError: `directory` can't be written.
    """
    numbers = default_subjects(subjects) if isinstance(subjects, int) else tuple(sorted(set(subjects)))
    order = _Order(numbers, images_per_subject, num_keypoints, seed, color)
    _check(order)
    _render_missing(directory, order, workers or len(os.sched_getaffinity(0)), progress)


def _check(order: _Order) -> None:
    if order.num_keypoints not in FACE_SIZES:
        known = ", ".join(map(str, FACE_SIZES))
        raise ValueError(f"rendered faces have {known} keypoints, not {order.num_keypoints}")
    if wrong := [s for s in order.subjects if not (len(s) == 3 and s.isdecimal())]:
        raise ValueError(f"a subject is three digits, not {wrong[0]!r}")
    if not order.subjects:
        raise ValueError("there must be at least one subject")
    Sitting(order.subjects[0], order.seed).captures(order.images_per_subject)


def _render_missing(directory: Path, order: _Order, workers: int, progress: Progress | None) -> None:
    """Render the subjects that have no ground-truth file yet, in parallel."""
    missing = [subject for subject in order.subjects if not _gt_path(directory, subject).exists()]
    done = order.num_images - len(missing) * order.images_per_subject
    if workers == 1 or len(missing) < 2:
        for subject in missing:
            render_subject(directory, subject, order)
            done = _advanced(done, order, progress)
        return
    # Spawned: a fork of a process that runs TensorFlow's threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(missing)), mp_context=context, initializer=_one_thread) as pool:
        jobs: list[Future[None]] = [pool.submit(render_subject, directory, subject, order) for subject in missing]
        try:
            for job in as_completed(jobs):
                job.result()
                done = _advanced(done, order, progress)
        finally:
            pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _advanced(done: int, order: _Order, progress: Progress | None) -> int:
    done += order.images_per_subject
    if progress is not None:
        progress(done, order.num_images)
    return done


def _gt_path(directory: Path, subject: str) -> Path:
    return directory / "gt" / (KPI_SET if subject in KPI_SUBJECTS else OTHER_SET) / f"{subject}.json"


def render_subject(directory: Path, subject: str, order: _Order) -> None:
    """Write the photographs of one subject, then its ground-truth file."""
    sitting = Sitting(subject, order.seed)
    captures = sitting.captures(order.images_per_subject)
    entries = [_render(directory, sitting, capture, order) for capture in captures]
    write_bytes(_gt_path(directory, subject), canonical_json(entries) + b"\n")


def _render(directory: Path, sitting: Sitting, capture: Capture, order: _Order) -> dict[str, Any]:
    """Write one photograph; its entry in the ground truth."""
    shot = sitting.photograph(capture, channels=1 if order.color == "gray" else 3)
    _, png = cv2.imencode(".png", shot.image, _PNG)
    name = f"images/{capture.file_name}"
    write_bytes(directory / name, png.tobytes())
    points_N2 = np.round(shot.points_N2[: order.num_keypoints], _DECIMALS)
    flags_N = np.where(shot.occluded_N[: order.num_keypoints], Flag.OCCLUDED, Flag.VISIBLE)
    chunks = face_to_sloth(points_N2, flags_N, tight_box=tight_square(points_N2))
    return image_entry(
        name,
        [[chunk | {"tool-version": "1.0"} for chunk in chunks]],
        session=capture.session,
        camera=camera_label(capture.camera),
        illumination=capture.illumination,
    )
