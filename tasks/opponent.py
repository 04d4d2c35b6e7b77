"""The champion as somebody to be measured against: whether that can be fair, and how it is used.

A champion that can't be compared is no error of the flow: what is in the way is said in words, and blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from model.crop import CONTEXT_RATIO
from schemas.config import Tracking
from schemas.errors import SpecError, TrackingError
from schemas.experiment import ExperimentSpec
from schemas.records import Split
from tasks.champion import CurrentModel, current_model, fetch_keras_model, fetch_spec
from tasks.convert import Conversion
from tasks.paired_scores import Contender
from tasks.snapshot import load_snapshot
from tasks.workspace import Workspace

NAMED = 10
_LEARNT = (Split.TRAIN.value, Split.VALIDATION.value)


def champion_of(tracking: Tracking, workspace: Workspace) -> CurrentModel | None:
    """The champion; None where no version was accepted yet.

    Raises:
        TrackingError: the server can't be reached, or refuses a request.
    """
    current = current_model(tracking, workspace)
    return current if current is not None and current.alias is not None else None


def as_contender(
    champion: CurrentModel, spec: ExperimentSpec, conversion: Conversion, tracking: Tracking, workspace: Workspace
) -> tuple[Contender | None, tuple[str, ...]]:
    """The champion as it is used, or what stands in the way of comparing it, each obstacle with what to do about it.

    Args:
        spec: of the challenger; `conversion` is what it was evaluated on.
    """
    leaks = tuple(_leaks(champion, conversion, workspace))
    try:
        own = fetch_spec(champion, tracking, workspace)
        obstacles = (*_misfits(champion, own, spec), *leaks)
        if obstacles:
            return None, obstacles
        model = fetch_keras_model(champion, tracking, workspace)
    except (TrackingError, SpecError) as error:
        return None, (f"{error}; or have this version reviewed with an override", *leaks)
    as_used = spec.dataloader.model_copy(update={"image_info": own.dataloader.image_info})
    return Contender(model, spec.model_copy(update={"dataloader": as_used}), own.dataloader.bbox_enlarge_ratio), ()


def _misfits(champion: CurrentModel, own: ExperimentSpec, spec: ExperimentSpec) -> Iterator[str]:
    """Where the champion can't be given the challenger's faces, or its answer is another."""
    override = "have this version reviewed with an override that says how the two were compared"
    if own.num_keypoints != spec.num_keypoints:
        yield (
            f"{champion} predicts {own.num_keypoints} keypoints, this version {spec.num_keypoints}: there is no "
            f"common error; register a model of another layout under another name (tracking.registered_model), or "
            f"{override}"
        )
    channels = own.dataloader.image_info.image.channel, spec.dataloader.image_info.image.channel
    if channels[0] != channels[1]:
        yield (
            f"{champion} reads {channels[0]} colour channels, the KPI shards are made for {channels[1]}; {override}"
        )
    ratio, converted = own.dataloader.bbox_enlarge_ratio, spec.dataloader.bbox_enlarge_ratio
    if ratio > CONTEXT_RATIO * converted:
        yield (
            f"{champion} sees a crop {ratio:g} times the face's square, more than the KPI shards hold around a crop "
            f"of {converted:g}; train with bbox_enlarge_ratio {ratio / CONTEXT_RATIO:.2f} or more, or {override}"
        )


def _leaks(champion: CurrentModel, conversion: Conversion, workspace: Workspace) -> Iterator[str]:
    """Where the champion has learnt from, or was chosen by, what it would be tested on."""
    tested = conversion.result["snapshot"]
    if champion.snapshot_id == tested:
        return
    learnt = workspace.snapshots / str(champion.snapshot_id)
    if champion.snapshot_id is None or not (learnt / "manifest.json").is_file():
        which = champion.snapshot_id[:12] if champion.snapshot_id else "without an id"
        yield (
            f"the snapshot ({which}) that {champion} was trained on is not in {workspace.snapshots}, so nobody can "
            "tell whether it has seen the KPI subjects; copy it there, or have this version reviewed with an override"
        )
        return
    mine, theirs = _people(workspace.snapshots / tested, (Split.KPI.value,)), _people(learnt, _LEARNT)
    subjects, images = sorted(mine[0] & theirs[0]), mine[1] & theirs[1]
    advice = (
        "its error on them says nothing; hold the same subjects out as it did (split.kpi_subjects, "
        "split.kpi_subject_files), or train a champion without them"
    )
    if subjects:
        shown = ", ".join(subjects[:NAMED]) + (" ..." if len(subjects) > NAMED else "")
        yield f"{champion} was trained on {len(subjects)} of the KPI subjects: {shown}; {advice}"
    elif images:
        yield f"{champion} was trained on {len(images)} of the KPI images, under other subjects; {advice}"


def _people(snapshot: Path, splits: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """Subjects, and SHA-256 of images, of some splits of a snapshot."""
    columns = ["split", "subject", "image_sha256"]
    table = pq.read_table(load_snapshot(snapshot).table, columns=columns, filters=[("split", "in", splits)])
    return set(table["subject"].to_pylist()) - {None, ""}, set(table["image_sha256"].to_pylist()) - {None}
