"""Measure challenger and champion on the same KPI faces, each through the crop that it was trained with.

Legend: F faces, N keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.paired import Row, compare, hold_against_bounds
from schemas.experiment import ExperimentSpec
from schemas.geometry import Box, SquareCrop
from schemas.promotion_rules import PromotionRules
from schemas.storage import atomic_path

if TYPE_CHECKING:
    from model.evaluation import Evaluation

FACES = "faces.parquet"


@dataclass(frozen=True)
class Contender:
    """A network and how it is used.

    Attributes:
        model: `.keras` file.
        spec: that of the records' conversion, with the input size that the network was trained with.
        ratio: how much larger than the tight square its crop is.
    """

    model: Path
    spec: ExperimentSpec
    ratio: float


@dataclass(frozen=True, eq=False)
class ScoredFaces:
    """What both models said of every KPI face; points in source pixels, errors in crop pixels over all points.

    Attributes:
        position_F: of the face in the KPI shards, counted through them in their order.
        names, subjects, sets: F strings; '' where unknown.
        boxes_F4: x, y, width, height of the face box that the challenger sees.
        true_FN2, challenger_FN2, champion_FN2: float32; the champion's None where there is none.
        flags_FN: int8, `schemas.records.Flag`.
        challenger_px_F, champion_px_F: mean error of the face.
    """

    position_F: np.ndarray
    names: tuple[str, ...]
    subjects: tuple[str, ...]
    sets: tuple[str, ...]
    boxes_F4: np.ndarray
    true_FN2: np.ndarray
    flags_FN: np.ndarray
    challenger_FN2: np.ndarray
    challenger_px_F: np.ndarray
    champion_FN2: np.ndarray | None = None
    champion_px_F: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)


def score_pair(
    challenger: Contender,
    champion: Contender | None,
    files: Sequence[Path],
    rules: PromotionRules,
    directory: Path,
) -> tuple[Row, ...]:
    """Rows of the comparison, or against the absolute bounds without a champion; writes `faces.parquet`.

    Args:
        files: the KPI shards, converted with the challenger's ratio.

    Raises:
        ModelFileError: a network can't be read or does not fit the faces.
        ShardError: a shard can't be read.
    """
    from model.slices import all_slices

    own = _evaluated(challenger, files, converted_ratio=challenger.ratio)
    other = champion and _evaluated(champion, files, converted_ratio=challenger.ratio)
    write_faces(_scored(own, other), directory)
    if other is None:
        return hold_against_bounds(own.errors, rules)
    slices = all_slices(own.true_FN2, own.flags_FN, own.subjects, own.sets)
    return compare(own.errors, other.errors, slices, rules)


def read_faces(directory: Path) -> ScoredFaces:
    """What `score_pair` wrote into a verdict's directory."""
    table = pq.read_table(directory / FACES)

    def array(name: str, *shape: int) -> np.ndarray:
        column = table[name].combine_chunks()
        values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
        return values.to_numpy(zero_copy_only=False).reshape(len(table), *shape)

    texts = {name: tuple(table[column].to_pylist()) for name, column in _TEXTS.items()}
    champion = {}
    if "champion" in table.column_names:
        champion = {"champion_FN2": array("champion", -1, 2), "champion_px_F": array("champion_px")}
    return ScoredFaces(
        position_F=array("position"),
        boxes_F4=array("box", 4),
        true_FN2=array("true", -1, 2),
        flags_FN=array("flags", -1),
        challenger_FN2=array("challenger", -1, 2),
        challenger_px_F=array("challenger_px"),
        **texts,
        **champion,
    )


_TEXTS = {"names": "image_name", "subjects": "subject", "sets": "set_id"}


def _evaluated(contender: Contender, files: Sequence[Path], *, converted_ratio: float) -> Evaluation:
    from model.evaluation import evaluate, keras_predict
    from model.pipeline import evaluation_batches
    from model.recrop import recropped_batches
    from model.weights import load_network

    network = load_network(contender.model)
    if contender.ratio == converted_ratio:
        batches = evaluation_batches(files, contender.spec)
    else:
        batches = recropped_batches(files, contender.spec, ratio=contender.ratio)
    return evaluate(keras_predict(network), batches, examples=0)


def _scored(own: Evaluation, other: Evaluation | None) -> ScoredFaces:
    return ScoredFaces(
        position_F=np.arange(len(own), dtype=np.int64),
        names=own.names,
        subjects=own.subjects,
        sets=own.sets,
        boxes_F4=own.boxes_F4,
        true_FN2=_in_frame(own, own.true_FN2),
        flags_FN=own.flags_FN,
        challenger_FN2=_in_frame(own, own.predicted_FN2),
        challenger_px_F=own.errors.crop_px_BK.mean(axis=1),
        champion_FN2=None if other is None else _in_frame(other, other.predicted_FN2),
        champion_px_F=None if other is None else other.errors.crop_px_BK.mean(axis=1),
    )


def _in_frame(evaluation: Evaluation, points_FN2: np.ndarray) -> np.ndarray:
    """Points of the network's input in source pixels."""
    crops = (SquareCrop.of_box(Box(*box), evaluation.input_size) for box in evaluation.boxes_F4.tolist())
    return np.stack([crop.to_frame(points) for crop, points in zip(crops, points_FN2, strict=True)])


def write_faces(faces: ScoredFaces, directory: Path) -> None:
    """What `read_faces` reads.

    Subjects and names are texts of their own columns, so that `fpenet forget` finds the rows of a person.
    """
    columns = {
        "position": pa.array(faces.position_F),
        **{column: pa.array(getattr(faces, name), pa.string()) for name, column in _TEXTS.items()},
        "box": _lists(faces.boxes_F4),
        "true": _lists(faces.true_FN2),
        "flags": _lists(faces.flags_FN),
        "challenger": _lists(faces.challenger_FN2),
        "challenger_px": pa.array(faces.challenger_px_F),
    }
    if faces.champion_FN2 is not None:
        columns |= {"champion": _lists(faces.champion_FN2), "champion_px": pa.array(faces.champion_px_F)}
    with atomic_path(directory / FACES) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def _lists(values: np.ndarray) -> pa.FixedSizeListArray:
    flat = values.reshape(len(values), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])
