"""Configuration of the flows, and of TAO's `dataset_convert`.

Paths are relative to the directory the command runs in. `${NAME}` stands for an environment variable.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from schemas.errors import SpecError
from schemas.quantities import BoxEnlargeRatio, KeypointCount, Share
from schemas.sources import Source, SubjectRule
from schemas.texts import read_text
from schemas.yamlspec import SpecModel, parse_spec

MULTIPIE_KPI_IDS = (*range(79, 85), *range(164, 170), *range(250, 256), *range(342, 347))
"""Subjects of Multi-PIE on which FPENet's model card reports its error."""


class ValidationRules(SpecModel):
    """`max_rejected_share`: above this share of rejected records the run fails."""

    max_rejected_share: Share = 0.02
    require_subject: bool = True


class SplitPolicy(SpecModel):
    """Who is tested on, who steers training, who is learnt from. Always whole subjects.

    Attributes:
        kpi_subjects: subjects `<dataset>/<id>` held out for the KPI.
        kpi_subject_files: dataset -> file with one id a line, added to `kpi_subjects`.
        kpi_min_subjects: fewer KPI subjects than this among the records is an error.
        validation_share: share of the other subjects used for validation, chosen by a hash of subject and seed.
    """

    kpi_subjects: list[str] = [f"multipie/{i:03d}" for i in MULTIPIE_KPI_IDS]
    kpi_subject_files: dict[str, str] = {}
    kpi_min_subjects: PositiveInt = 1
    validation_share: Share = 0.1
    seed: int = 0


class ConversionSettings(SpecModel):
    """`buckets`: shards per split; a face is in the bucket hash(image) modulo this, so that one changed
    annotation rewrites one shard."""

    bbox_enlarge_ratio: BoxEnlargeRatio = 1.0
    box_outside_frame: Literal["pad", "drop"] = "pad"
    embed_crops: bool = True
    color: Literal["gray", "rgb"] = "gray"
    buckets: Annotated[int, Field(ge=1, le=4096)] = 4

    @property
    def channels(self) -> int:
        """The most that a network can read of the shards: 1 where only gray crops are in them."""
        return 1 if self.embed_crops and self.color == "gray" else 3


class Tracking(SpecModel):
    """`uri`: MLflow tracking and registry; null keeps a SQLite file in the workspace."""

    uri: str | None = None
    experiment: str = "fpenet"
    registered_model: str = "fpenet"


class Gates(SpecModel):
    """Bounds of a candidate's file; those of an engine are its target's (`deploy/targets.yaml`), those of its error
    on the KPI faces the rules of promotion.

    Attributes:
        onnx_parity_px: the furthest that a keypoint of the ONNX file may be from Keras's, in network-input pixels.
    """

    onnx_parity_px: PositiveFloat = 1e-3


class QualitySettings(SpecModel):
    """What the flow `quality` asks of the labels.

    A region or point counts as in dispute where its spread, the mean distance between two annotators, is above the
    bound in every unit that has one and that the face can be measured in: in profile the eyes' distance is too short
    to measure by, in crop pixels it is like any other face. Null sets no bound.

    Attributes:
        max_region_spread_percent: largest mean spread of a region of a face, per cent of the inter-ocular distance.
        max_region_spread_crop_px: the same in crop pixels.
        max_point_spread_percent: largest spread of one point.
        max_point_spread_crop_px: the same in crop pixels.
        max_flag_dispute: largest share of a face's points on whose occlusion the annotators differ.
        view: title of the tab in Label Studio that holds the tasks to look at again; null makes none.
        min_suspicion: score from which a label counts as suspicious: about -ln of the share of sound labels that
            reach it by chance.
        max_suspects: as many are listed at most, the most suspicious ones.
        duplicate_bits: bits in which the hashes of some part of two faces may differ for them to be compared.
        min_duplicate_correlation: smallest correlation of the six most alike of 16 parts of two duplicates.
    """

    max_region_spread_percent: PositiveFloat | None = 8.0
    max_region_spread_crop_px: PositiveFloat | None = 4.0
    max_point_spread_percent: PositiveFloat | None = 25.0
    max_point_spread_crop_px: PositiveFloat | None = 12.0
    max_flag_dispute: Share = 0.2
    view: Annotated[str, Field(min_length=1, max_length=60)] | None = "Quality: annotators disagree"
    min_suspicion: NonNegativeFloat = 6.0
    max_suspects: PositiveInt = 200
    duplicate_bits: Annotated[int, Field(ge=0, le=32)] = 10
    min_duplicate_correlation: Share = 0.93


class SyncSettings(SpecModel):
    """When changed annotations are worth a new model. A deleted face is a changed one.

    Attributes:
        min_changed_faces, min_changed_share: as many faces, or as large a share of those that the model was trained
            on; whichever is reached first.
        quiet_s: seconds without a change before what was changed is used.
    """

    min_changed_faces: PositiveInt = 100
    min_changed_share: Share = 0.02
    quiet_s: NonNegativeFloat = 600


class LabellingSettings(SpecModel):
    """What the flow `suggest` proposes to labellers.

    Attributes:
        suggest: how many tasks to have labelled next, of all projects together.
        predict: which tasks get the current model's prediction: the suggested ones, or all that nobody has touched.
            With more than one member in a project, Label Studio gives these out at random: see
            `tasks.label_studio.predictions`.
        search_face: look for the face of a task that has no face box; else the task gets no prediction.
        order_stream: set the projects' sampling and model version, so that labellers get the tasks in this order.
        keep_view: keep the tab "Next to label" in the projects' data managers.
    """

    suggest: PositiveInt = 100
    predict: Literal["suggested", "untouched"] = "suggested"
    search_face: bool = True
    order_stream: bool = True
    keep_view: bool = True


class ReviewSettings(SpecModel):
    """`valid_days`: how long an approval holds, from when a flow first saw it."""

    valid_days: PositiveInt = 14


class DriftSettings(SpecModel):
    """When what a device sees is no longer what its model was tested on.

    Attributes:
        window_hours: how far back the flow looks.
        min_index: population stability index of a signal that its lower bound must exceed.
        confidence: of that bound, one-sided, for each signal alone.
        min_faces: independent faces that a device must have seen; with fewer nothing is said.
        min_hours: hours in which it must have seen some: how much they differ tells what faces are worth.
        people: device -> at most how many people use it. The others count as seeing many people: where the same few
            come every hour, the hours are alike, and it looks like drift that these are not the average person.
    """

    window_hours: PositiveInt = 24
    min_index: PositiveFloat = 0.1
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.99
    min_faces: PositiveInt = 50
    min_hours: PositiveInt = 6
    people: dict[str, Annotated[int, Field(gt=0, le=100)]] = {}


class WorkflowConfig(SpecModel):
    """What the flows need beside the experiment spec.

    Attributes:
        targets: kinds of devices, of `deploy/targets.yaml`.
        devices: file with the devices themselves; null takes `deploy/devices.yaml`, which has this machine only.
        promotion_rules: file with what a challenger must show; null takes `schemas/promotion_rules.yaml`.
    """

    workspace: str = "workspace"
    num_keypoints: KeypointCount = 80
    sources: Annotated[list[Source], Field(min_length=1)]
    validation: ValidationRules = ValidationRules()
    split: SplitPolicy = SplitPolicy()
    conversion: ConversionSettings = ConversionSettings()
    experiment_spec: str
    tracking: Tracking = Tracking()
    gates: Gates = Gates()
    quality: QualitySettings = QualitySettings()
    labelling: LabellingSettings = LabellingSettings()
    sync: SyncSettings = SyncSettings()
    drift: DriftSettings = DriftSettings()
    review: ReviewSettings = ReviewSettings()
    targets: Annotated[list[str], Field(min_length=1)] = ["cpu"]
    devices: str | None = None
    promotion_rules: str | None = None

    @model_validator(mode="after")
    def _distinct_sources(self) -> WorkflowConfig:
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(f"source names must differ: {', '.join(names)}")
        return self


class DatasetConvertSpec(SpecModel):
    """TAO's `dataset_convert` spec, its keys and path rules; `subject` and `box_outside_frame` are ours.

    Reads every file of `gt_root_path/gt_path/<set>/` with `.json` in its name, writes
    `save_root_path/save_path/<set>/tfrecord_folder/tfrecord_name`; a later absolute part replaces the earlier ones.
    """

    sets: Annotated[list[str], Field(min_length=1)]
    gt_path: str
    save_path: str
    gt_root_path: str | None = ""
    save_root_path: str | None = ""
    image_root_path: str | None = ""
    tfrecord_folder: str
    tfrecord_name: str
    num_keypoints: KeypointCount = 80
    bbox_enlarge_ratio: BoxEnlargeRatio = 1.0
    box_outside_frame: Literal["pad", "drop"] = "drop"
    embed_crops: bool = False
    subject: SubjectRule | None = None


def load_config(path: Path | str) -> WorkflowConfig:
    """Read the flows' configuration, `${NAME}` replaced from the environment.

    Raises:
        SpecError: unreadable, wrong, or naming a variable that is not set.
    """
    return parse_spec(WorkflowConfig, _expand(read_text(path), path), str(path))


def _expand(text: str, path: Path | str) -> str:
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        content = line if not line.lstrip().startswith("#") else ""
        for name in re.findall(r"\$\{(\w+)\}", content):
            if name not in os.environ:
                raise SpecError(f"{path}:{number}", f"the environment variable {name} is not set")
            lines[number - 1] = lines[number - 1].replace(f"${{{name}}}", os.environ[name])
    return "\n".join(lines)
