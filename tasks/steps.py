"""The Prefect tasks that make a candidate: each runs one step of this package and tells the run how it went.

They stand apart from the steps so that a command that needs a step does not wait 2 s for Prefect's import. Prefect's
cache is off (`tasks.reuse` decides by content) and results are not stored. Large arguments come wrapped in `quote`,
so that Prefect does not search thousands of records for futures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE

from deploy.engine import Provenance
from deploy.stages import stage
from schemas.errors import SourceUnreachableError, StorageError
from schemas.experiment import ExperimentSpec
from schemas.raw import read_raw
from schemas.records import Split
from schemas.sources import Source
from tasks.calibration import CalibrationCrops
from tasks.convert import Conversion, convert
from tasks.engines import CheckedEngine, build_and_check, built_later
from tasks.evaluate import FIGURES, FILES, KpiCrops, evaluate_network
from tasks.export import ONNX, export_network
from tasks.images import ImageIndex
from tasks.lineage.index import open_index
from tasks.lineage.versions import VersionRecord, record_version
from tasks.model_card import model_card
from tasks.pull import PullResult, pull
from tasks.reuse import StepOutput
from tasks.review.page import LoggedPage, Review, log_page, review_data
from tasks.run import Run
from tasks.snapshot import Snapshot, load_snapshot, take_snapshot
from tasks.summarise import RunResults, code_versions, summarise
from tasks.summary import LaterEngine
from tasks.tracking import Candidate, RegisteredVersion, register_candidate
from tasks.train import MODEL, train_network
from tasks.validate import Validation, validate
from tasks.verdict import Verdict, judge

if TYPE_CHECKING:
    from model.progress import TerminalProgress

step_task = partial(task, cache_policy=NO_CACHE, persist_result=False)

server_task = partial(
    step_task,
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=lambda _task, _run, state: isinstance(
        state.result(raise_on_failure=False), SourceUnreachableError
    ),
)
"""A step that asks annotation servers: it waits for one that is away for a moment."""


@server_task(name="pull")
def pull_source(run: Run, source: Source) -> PullResult:
    with run.step(f"pull {source.name}") as step, run.counting("pull") as progress:
        result = pull(source, run.workspace, num_keypoints=run.config.num_keypoints, progress=progress)
        step.detail = str(result)
    return result


@step_task(name="validate")
def validate_records(run: Run, pulls: Sequence[PullResult]) -> Validation:
    with (
        run.step("validate") as step,
        run.counting("validate") as progress,
        closing(ImageIndex(run.workspace.image_index)) as index,
    ):
        validation = validate(
            (record for result in pulls for record in read_raw(result.raw)),
            num_keypoints=run.config.num_keypoints,
            rules=run.config.validation,
            index=index,
            violations_path=run.workspace.violations,
            progress=partial(progress, "images"),
            expected=sum(result.records for result in pulls),
        )
        counts = validation.counts
        step.detail = (
            f"{counts.annotations:,} annotations: {counts.accepted:,} accepted, {counts.rejected:,} rejected, "
            f"{counts.superseded:,} superseded, {counts.skipped:,} skipped"
        )
    return validation


@step_task(name="snapshot")
def snapshot_faces(run: Run, validation: Validation, pulls: Sequence[PullResult]) -> Snapshot:
    sources = [dataclasses.asdict(result) | {"raw": result.raw.name} for result in pulls]
    with run.step("snapshot") as step:
        output = take_snapshot(
            validation,
            policy=run.config.split,
            num_keypoints=run.config.num_keypoints,
            snapshots=run.workspace.snapshots,
            provenance={"sources": sources},
        )
        step.found(output.reused)
        splits = (f"{split} {output.result['splits'][split]['faces']:,}" for split in Split)
        step.detail = f"{output.result['snapshot'][:12]}: {', '.join(splits)} faces"
    return load_snapshot(output.directory)


@step_task(name="convert")
def convert_snapshot(run: Run, snapshot: Snapshot) -> Conversion:
    with run.step("convert") as step, run.counting("convert") as progress:
        conversion = convert(snapshot, run.config.conversion, run.workspace, progress=partial(progress, "faces"))
        step.found(conversion.written == 0)
        step.detail = f"{conversion.written} shards written, {conversion.reused} reused"
    return conversion


@step_task(name="train")
def train_candidate(
    run: Run, spec: ExperimentSpec, conversion: Conversion, kpi_subjects: frozenset[str]
) -> StepOutput:
    def progress() -> TerminalProgress:
        from model.progress import TerminalProgress

        return TerminalProgress(run.console)

    with run.step("train") as step:
        output = train_network(
            spec, conversion, kpi_subjects=kpi_subjects, parent=run.workspace.training, progress=progress
        )
        step.found(output.reused)
        if not output.reused and output.result["resumed_after"]:
            step.state = "resumed"
        best = next(row for row in output.result["history"] if row["epoch"] == output.result["best_epoch"])
        error = best["validation_error_px"]
        step.detail = f"{len(output.result['history'])} epochs, best {output.result['best_epoch']}" + (
            f": validation {error:.2f} crop px" if error is not None else ""
        )
    return output


@step_task(name="evaluate")
def evaluate_candidate(run: Run, spec: ExperimentSpec, conversion: Conversion, trained: StepOutput) -> StepOutput:
    with run.step("evaluate") as step:
        output = evaluate_network(trained, spec, conversion, parent=run.workspace.evaluation)
        step.found(output.reused)
        report = output.result["report"]
        error = report["regions"]["All"]["crop_px"]["all"]["error"]
        step.detail = f"{report['faces']:,} KPI faces of {report['subjects']} subjects: All {error:.2f} crop px"
    return output


@step_task(name="export")
def export_candidate(run: Run, crops: KpiCrops, trained: StepOutput) -> StepOutput:
    with run.step("export") as step:
        output = export_network(
            trained,
            crops=crops,
            bound_px=run.config.gates.onnx_parity_px,
            parent=run.workspace.exports,
        )
        step.found(output.reused)
        furthest = output.result["parity"]["max_px"]["All"]
        step.detail = f"opset {output.result['opset']}, furthest from Keras {furthest:.1e} px"
    return output


@step_task(name="register")
def register(
    run: Run,
    spec: ExperimentSpec,
    snapshot: Snapshot,
    trained: StepOutput,
    evaluated: StepOutput,
    exported: StepOutput,
) -> RegisteredVersion:
    candidate = Candidate(
        key=evaluated.key,  # of model and KPI faces, so of everything that went in
        spec=spec,
        snapshot_id=snapshot.id,
        snapshot=snapshot.directory,
        split_counts={str(split): snapshot.splits.count(split) for split in Split},
        history=trained.result["history"],
        report=evaluated.result["report"],
        keras_model=trained.directory / MODEL,
        onnx_model=exported.directory / ONNX,
        evaluation=evaluated.directory / FILES,
        figures=evaluated.directory / FIGURES,
        versions=code_versions(),
    )
    with run.step("register") as step:
        version = register_candidate(candidate, run.config.tracking, run.workspace)
        step.found(not version.created)
        step.detail = f"{version.name} version {version.version}, challenger"
        record_version(
            run.workspace,
            VersionRecord(
                name=version.name,
                version=version.version,
                run_id=version.run_id,
                snapshot=snapshot.id,
                training=trained.key,
                onnx_sha256=exported.result["sha256"],
            ),
        )
    return version


@step_task(name="judge")
def judge_candidate(
    run: Run, spec: ExperimentSpec, conversion: Conversion, trained: StepOutput, registered: RegisteredVersion
) -> Verdict:
    with run.step("judge") as step:
        verdict = judge(
            run.config, run.workspace, spec=spec, conversion=conversion, trained=trained, registered=registered
        )
        step.found(verdict.reused)
        step.detail = verdict.summary
    return verdict


@step_task(name="build")
def build_target(
    run: Run,
    target: str,
    snapshot: Snapshot,
    crops: KpiCrops,
    calibration: CalibrationCrops,
    trained: StepOutput,
    exported: StepOutput,
    registered: RegisteredVersion,
) -> CheckedEngine:
    with run.step(f"build {target}") as step:
        engine = build_and_check(
            exported.directory / ONNX,
            target,
            trained=trained,
            crops=crops,
            calibration=calibration,
            provenance=Provenance(registered.name, registered.version, snapshot.id),
            engines=run.workspace.engines,
        )
        step.found(engine.reused)
        parity, check = engine.check["parity"], engine.check
        step.detail = f"{engine.manifest['builder']}, {engine.manifest['precision']}: " + (
            f"{parity['mean_px']['All']:.1e} px from Keras" if parity else f"{check['state']}, {check['reason']}"
        )
    return engine


@step_task(name="leave to devices")
def leave_to_devices(run: Run, targets: Sequence[str]) -> list[LaterEngine]:
    with run.step("leave to devices") as step:
        later = built_later(targets)
        names = ", ".join(engine.target for engine in later)
        step.detail = f"built on the device, after review: {names}" if later else "none"
    return later


@step_task(name="stage")
def stage_engine(run: Run, engine: CheckedEngine) -> None:
    with run.step(f"stage {engine.target}") as step:
        by = f"flow {runtime.flow_run.flow_name}"
        pointer = stage(run.workspace.targets, engine.target, engine.directory, by=by, why=f"run {run.id}")
        step.found(pointer.event.why != f"run {run.id}")
        step.detail = f"staging holds {pointer.engine.build_key}"


@step_task(name="lineage")
def index_lineage(run: Run) -> None:
    """So that the first question need not wait; a question makes up for what fails here."""
    with run.step("lineage") as step:
        try:
            with open_index(run.workspace) as index:
                step.found(index.read == 0)
                step.detail = f"{len(index.snapshots())} snapshots, {index.read} of them new"
        except StorageError as error:
            step.detail = f"not indexed: {error}"


@step_task(name="review page")
def prepare_review(run: Run, conversion: Conversion, results: RunResults) -> LoggedPage | None:
    """Lay page and model card before the reviewer; None for the champion, which was reviewed."""
    registered, verdict, tracking = results.registered, results.verdict, run.config.tracking
    with run.step("review page") as step:
        made_by = {"code": registered.code_version, "commit": registered.git_commit}
        parents = {
            "snapshot": results.snapshot.id,
            "training": results.trained.key,
            "ONNX, SHA-256": results.exported.result["sha256"],
            "MLflow run": registered.run_id,
            **{name: known for name, known in made_by.items() if known},
            "compared with": f"{verdict.model} version {verdict.champion}" if verdict.champion else "no champion yet",
        }
        summary, files = summarise(run, results), conversion.files[Split.KPI]
        data = review_data(summary, verdict, parents)
        review = Review(data, verdict, files, results.spec, run.config.review, model_card(summary))
        logged = log_page(review, registered, tracking, run.workspace)
        step.found(logged is None or logged.reused)
        step.detail = (
            f"waits for a reviewer, report {logged.report[:12]}" if logged else "the champion, reviewed before"
        )
    return logged


@step_task(name="report")
def report_run(run: Run, results: RunResults) -> Path:
    from tasks.report import print_summary, write_report

    summary = summarise(run, results)
    page = write_report(summary, run.workspace.reports / run.id)
    print_summary(summary, run.console)
    run.console.print(f"page: {page}")
    return page
