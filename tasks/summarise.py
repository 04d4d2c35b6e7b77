"""Put together what a run did, from what its steps gave."""

from __future__ import annotations

import dataclasses
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from schemas.annotation import NOTED, SKIPPED
from schemas.experiment import ExperimentSpec
from schemas.records import Face, Flag, Split, Violation
from schemas.source_code import SOURCE_ROOT
from tasks.engines import CheckedEngine
from tasks.evaluate import FIGURES
from tasks.pull import PullResult
from tasks.reuse import StepOutput
from tasks.run import Run
from tasks.snapshot import Snapshot
from tasks.summary import (
    CandidateSummary,
    EngineSummary,
    FaceSummary,
    GateResult,
    LaterEngine,
    RunSummary,
    SourceSummary,
    SplitSummary,
    VerdictSummary,
    rejections,
)
from tasks.tracking import RegisteredVersion
from tasks.verdict import Verdict


@dataclass(frozen=True, eq=False)
class RunResults:
    """What the steps of a run gave. `engines` are staged, `later` are left to devices."""

    spec: ExperimentSpec
    pulls: Sequence[PullResult]
    snapshot: Snapshot
    trained: StepOutput
    evaluated: StepOutput
    exported: StepOutput
    registered: RegisteredVersion
    verdict: Verdict
    engines: Sequence[CheckedEngine]
    gates: Sequence[GateResult]
    later: Sequence[LaterEngine] = ()


def summarise(run: Run, results: RunResults) -> RunSummary:
    """Everything that a person is shown of the run."""
    snapshot, trained, evaluated = results.snapshot, results.trained, results.evaluated
    figures = evaluated.directory / FIGURES
    best, worst = (
        tuple(
            FaceSummary(str(figures / face["file"]), face["name"], face["subject"], face["error_crop_px"])
            for face in evaluated.result["faces"][kind]
        )
        for kind in ("best", "worst")
    )
    used = {
        Split.TRAIN: trained.result["faces"],
        Split.VALIDATION: trained.result["validation_faces"],
        Split.KPI: evaluated.result["report"]["faces"],
    }
    return RunSummary(
        run_id=run.id,
        started_at=run.started.isoformat(timespec="seconds"),
        seconds=time.time() - run.started.timestamp(),
        snapshot_id=snapshot.id,
        model_version=f"{results.registered.name}/{results.registered.version}",
        code_version=version("fpenet-workflow"),
        git_commit=git_commit(),
        network=describe_network(results.spec, trained),
        candidate=_candidate(results),
        sources=tuple(_source(pull, snapshot) for pull in results.pulls),
        splits=tuple(_split(split, snapshot, used[split]) for split in Split),
        rejections=rejections(snapshot.violations),
        history=tuple(trained.result["history"]),
        evaluation=evaluated.result["report"],
        best=best,
        worst=worst,
        engines=tuple(_engine(engine) for engine in results.engines),
        gates=tuple(results.gates),
        verdict=_verdict(results.verdict),
        steps=tuple(run.steps),
        later=tuple(results.later),
    )


def gate_results(run: Run, exported: StepOutput) -> list[GateResult]:
    """The numbers of a candidate's file that have a bound; the verdict holds those of its error."""
    furthest, bound = exported.result["parity"]["max_px"]["All"], run.config.gates.onnx_parity_px
    return [GateResult("ONNX against Keras, furthest keypoint", furthest, bound, "input px")]


def describe_network(spec: ExperimentSpec, trained: StepOutput) -> str:
    parameters, result = spec.model.model_parameters, trained.result
    return (
        f"{parameters.type}, width {parameters.width}, {result['parameters']:,} parameters, "
        f"{result['macs'] / 1e9:.2f} GMAC"
    )


def code_versions() -> dict[str, str | None]:
    """Tags of a version that this code registers."""
    return {"code_version": version("fpenet-workflow"), "git_commit": git_commit()}


def git_commit() -> str | None:
    """Of the checkout that runs, with `+` where it was changed since; None outside a checkout."""
    command = ["git", "-C", str(SOURCE_ROOT), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def _candidate(results: RunResults) -> CandidateSummary:
    registered, cost = results.registered, results.trained.result
    return CandidateSummary(
        key=results.evaluated.key,
        code_version=registered.code_version,
        git_commit=registered.git_commit,
        spec=results.spec.model_dump(mode="json", by_alias=True),
        parameters=cost["parameters"],
        macs=cost["macs"],
    )


def _source(pull: PullResult, snapshot: Snapshot) -> SourceSummary:
    refused, accepted = _refused(pull.source, snapshot.violations), _from(pull.source, snapshot.faces)
    return SourceSummary(
        name=pull.source,
        kind=pull.kind,
        records=pull.records,
        accepted=len(accepted),
        rejected=refused[False],
        superseded=len(_from(pull.source, snapshot.superseded)),
        skipped=refused[True],
        points=_points(accepted),
    )


def _from(source: str, faces: Sequence[Face]) -> list[Face]:
    return [face for face in faces if face.source_key.startswith(f"{source}:")]


def _points(faces: Sequence[Face]) -> dict[str, int]:
    """Flag -> number of points."""
    flags_P = np.concatenate([face.flags_N for face in faces]) if faces else np.empty(0, np.int8)
    return {flag.name.lower(): int((flags_P == flag).sum()) for flag in Flag}


def _refused(source: str, violations: Sequence[Violation]) -> Counter[bool]:
    """Number of annotations that were rejected (False) and only skipped (True)."""
    codes: dict[str, set[str]] = {}
    for violation in violations:
        if violation.record.startswith(f"{source}:"):
            codes.setdefault(violation.record, set()).add(violation.code)
    return Counter(refused <= SKIPPED for found in codes.values() if (refused := found - NOTED))


def _split(split: Split, snapshot: Snapshot, used: int) -> SplitSummary:
    faces = [face for face, of_face in zip(snapshot.faces, snapshot.splits, strict=True) if of_face is split]
    subjects = [face.subject for face in faces]
    known, nameless = len(set(subjects) - {None}), subjects.count(None)
    return SplitSummary(str(split), len(faces), known, nameless, used, _points(faces))


def _verdict(verdict: Verdict) -> VerdictSummary:
    names = (field.name for field in dataclasses.fields(VerdictSummary))
    return VerdictSummary(**{name: getattr(verdict, name) for name in names})


def _engine(engine: CheckedEngine) -> EngineSummary:
    manifest, check = engine.manifest, engine.check
    parity, latency = check["parity"], check["latency"]
    return EngineSummary(
        target=engine.target,
        title=engine.title,
        builder=manifest["builder"].split(",")[0],
        precision=manifest["precision"],
        size_bytes=manifest["engine_size"],
        stage="staging",
        parity_px=parity and parity["mean_px"]["All"],
        parity_max_px=parity and parity["max_px"]["All"],
        latency_ms=latency and latency["p50_ms"],
        graph_px=check["graph"]["mean_px"]["All"],
        not_run=check["reason"],
    )
