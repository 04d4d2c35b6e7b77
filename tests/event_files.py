"""What stands in TensorBoard's event files, for tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf


def events(directory: Path) -> Iterator[tuple[int, str, np.ndarray]]:
    """Step, tag and value of every summary, file after file; a picture's value is width, height and PNG files."""
    for path in sorted(directory.glob("events.out.tfevents.*"), key=_numbers):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                yield event.step, value.tag, tf.make_ndarray(value.tensor)


def _numbers(path: Path) -> list[int]:
    """Time, process and number of an event file: the tenth of a process comes after its ninth."""
    return [int(digits) for digits in re.findall(r"\d+", path.name)]


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> points of the curve, in the order they were written."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for step, tag, value in events(directory):
        if value.dtype == np.float32:
            curves.setdefault(tag, []).append((step, float(value)))
    return curves


def pictures(directory: Path) -> dict[str, list[tuple[int, list[np.ndarray]]]]:
    """Tag -> steps and images (H, W, C) uint8."""
    found: dict[str, list[tuple[int, list[np.ndarray]]]] = {}
    for step, tag, value in events(directory):
        if value.dtype != np.float32:
            found.setdefault(tag, []).append((step, [tf.io.decode_png(png).numpy() for png in value[2:]]))
    return found
