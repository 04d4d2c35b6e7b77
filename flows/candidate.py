"""From annotations to checked engines at stage `staging`: what a turn of work on a project does when it trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect.utilities.annotations import quote

from deploy.devices import load_devices
from deploy.targets import find_target
from schemas.config import WorkflowConfig
from schemas.errors import SpecError
from schemas.experiment import ExperimentSpec
from schemas.promotion_rules import load_rules
from schemas.yamlspec import load_spec
from tasks.calibration import CalibrationCrops
from tasks.evaluate import KpiCrops
from tasks.failures import remembered
from tasks.pull import PullResult
from tasks.run import Run
from tasks.snapshot import Snapshot
from tasks.steps import (
    build_target,
    convert_snapshot,
    evaluate_candidate,
    export_candidate,
    index_lineage,
    judge_candidate,
    leave_to_devices,
    prepare_review,
    pull_source,
    register,
    report_run,
    snapshot_faces,
    stage_engine,
    train_candidate,
    validate_records,
)
from tasks.summarise import RunResults, gate_results


def make_candidate(settings: WorkflowConfig) -> str:
    """Pull, validate, snapshot, convert, train, evaluate, export, register, judge, build, check, stage, lay it
    before the reviewer, report.

    A verdict that is not "passed" stops nothing: the reviewer is told, and may override it. Steps whose inputs,
    configuration and code are those of an earlier run are reused. Promotion waits for review.
    Called inside a flow that holds the project's lease.

    Returns:
        Path of the run's page.

    Raises:
        GateError: the ONNX file or an engine is further from Keras than its bound.
        FpenetError: see `schemas.errors`.
    """
    spec = load_experiment(settings)
    run = Run(settings)
    pulls = [pull_source(run, source) for source in settings.sources]
    validation = validate_records(run, pulls)
    snapshot = snapshot_faces(run, quote(validation), pulls)
    with remembered(run, spec, snapshot.id):
        return _from_snapshot(run, spec, pulls, snapshot)


def require_readable(settings: WorkflowConfig) -> None:
    """Read what the configuration names for steps behind the training, so that a typo is told before the pull.

    Raises:
        SpecError: a target that the catalogue does not have; or the rules of promotion or the devices can't be read.
    """
    for target in settings.targets:
        find_target(target)
    load_rules(settings.promotion_rules)
    load_devices(settings.devices)


def load_experiment(settings: WorkflowConfig) -> ExperimentSpec:
    """The configuration's experiment spec.

    Raises:
        SpecError: it can't be read, or its number of keypoints or its crop is not the configuration's, or it wants
            colours that the configuration does not keep.
    """
    path = Path(settings.experiment_spec)
    spec = load_spec(ExperimentSpec, path)
    for key, value, wanted in (
        ("num_keypoints", spec.num_keypoints, settings.num_keypoints),
        (
            "dataloader.bbox_enlarge_ratio",
            spec.dataloader.bbox_enlarge_ratio,
            settings.conversion.bbox_enlarge_ratio,
        ),
    ):
        if value != wanted:
            raise SpecError(f"{path}: {key}", f"is {value}, but {wanted} in the configuration")
    channel = spec.dataloader.image_info.image.channel
    if channel > settings.conversion.channels:
        raise SpecError(
            f"{path}: dataloader.image_info.image.channel",
            f"is {channel}, but the configuration keeps gray crops; set conversion.color to rgb",
        )
    return spec


def _from_snapshot(run: Run, spec: ExperimentSpec, pulls: Sequence[PullResult], snapshot: Snapshot) -> str:
    settings = run.config
    conversion = convert_snapshot(run, quote(snapshot))
    trained = train_candidate(run, spec, conversion, snapshot.kpi_subjects)
    evaluated = evaluate_candidate(run, spec, conversion, trained)
    crops, calibration = KpiCrops(conversion, spec), CalibrationCrops(conversion, spec)
    exported = export_candidate(run, crops, trained)
    registered = register(run, spec, quote(snapshot), trained, evaluated, exported)
    verdict = judge_candidate(run, spec, conversion, trained, registered)
    gates = gate_results(run, exported)
    later = leave_to_devices(run, settings.targets)
    elsewhere = {engine.target for engine in later}
    engines = [
        build_target(run, target, quote(snapshot), crops, calibration, trained, exported, registered)
        for target in settings.targets
        if target not in elsewhere
    ]
    for engine in engines:
        stage_engine(run, engine)
    index_lineage(run)
    results = RunResults(
        spec, pulls, snapshot, trained, evaluated, exported, registered, verdict, engines, gates, later
    )
    prepare_review(run, quote(conversion), quote(results))
    return str(report_run(run, quote(results)))
