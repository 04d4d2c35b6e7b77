"""Folders of faces in the TAO/Sloth form, brought in as the flow does it: for other files here.

Such a folder holds `images/`, `gt/*.json`, `manifest.csv` (file, subject_id) and `kpi_subjects.txt`.
"""

from __future__ import annotations

from pathlib import Path

from schemas.config import ConversionSettings, SplitPolicy, ValidationRules
from schemas.raw import read_raw
from schemas.sources import SlothSource, Source, SubjectRule
from tasks.convert import Conversion, convert
from tasks.images import ImageIndex
from tasks.pull import pull
from tasks.snapshot import load_snapshot, take_snapshot
from tasks.validate import validate
from tasks.workspace import Workspace


def folder_source(data: Path, dataset: str, *, origin: float = 0.0) -> tuple[SlothSource, SplitPolicy]:
    """The folder as a source, and its split: its KPI subjects are held out, all others trained on.

    Args:
        dataset: whose subjects they are. Folders with copies of the same photos have the same.
        origin: the coordinate that its files give to the centre of the top-left pixel.
    """
    rule = SubjectRule(dataset=dataset, csv=str(data / "manifest.csv"))
    source = SlothSource(kind="sloth", name=data.name, root=str(data), gt=["gt/*.json"], subject=rule, origin=origin)
    files = {dataset: str(data / "kpi_subjects.txt")}
    return source, SplitPolicy(kpi_subjects=[], kpi_subject_files=files, validation_share=0)


def converted(
    source: Source, policy: SplitPolicy, workspace: Workspace, *, num_keypoints: int, ratio: float
) -> Conversion:
    """Pull, validate, snapshot and convert, to one TFRecord file per split, with face boxes enlarged by `ratio`."""
    pulled = pull(source, workspace, num_keypoints=num_keypoints)
    validation = validate(
        read_raw(pulled.raw),
        num_keypoints=num_keypoints,
        rules=ValidationRules(),
        index=ImageIndex(workspace.image_index),
        violations_path=workspace.violations,
        expected=pulled.records,
    )
    taken = take_snapshot(
        validation, policy=policy, num_keypoints=num_keypoints, snapshots=workspace.snapshots, provenance={}
    )
    settings = ConversionSettings(bbox_enlarge_ratio=ratio, buckets=1)
    return convert(load_snapshot(taken.directory), settings, workspace)
