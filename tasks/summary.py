"""What a run did, as plain data: the one input of the report page and of the terminal table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from schemas.records import Violation

if TYPE_CHECKING:
    from model.paired import Row

EXAMPLES = 5


@dataclass(frozen=True)
class CandidateSummary:
    """What was trained; a rerun that finds it again changes nothing here.

    Attributes:
        key: names everything that went in.
        code_version, git_commit: of the code that registered it; None where unknown.
        spec: the experiment spec, `schemas.experiment.ExperimentSpec` as JSON.
        parameters, macs: of `model.network.NetworkCost`.
    """

    key: str
    code_version: str | None
    git_commit: str | None
    spec: Mapping[str, Any]
    parameters: int
    macs: int


@dataclass(frozen=True)
class SourceSummary:
    """One source: records as pulled, and what became of the annotations in them (they add up).

    `points`: those of the accepted annotations, flag (`visible`, `occluded`, `unknown`) -> how many.
    """

    name: str
    kind: str
    records: int
    accepted: int
    rejected: int
    superseded: int
    skipped: int
    points: Mapping[str, int]


@dataclass(frozen=True)
class SplitSummary:
    """The faces of a split.

    Attributes:
        subjects: that are known.
        nameless: faces of unknown subjects.
        used: faces that were learnt from or measured; the others were left out by the conversion.
        points: flag -> how many, as of `SourceSummary`.
    """

    split: str
    faces: int
    subjects: int
    nameless: int
    used: int
    points: Mapping[str, int]


@dataclass(frozen=True)
class Rejection:
    """Violations of one rule: how many, how many records they are in, and the first few."""

    code: str
    rule: str
    count: int
    records: int
    examples: tuple[Violation, ...]


@dataclass(frozen=True)
class FaceSummary:
    """A drawn face; `picture` is a PNG file."""

    picture: str
    name: str
    subject: str
    error_crop_px: float


@dataclass(frozen=True)
class EvaluationSummary:
    """What the command line's `evaluate` measured: which model by which spec on which TFRecord files.

    `report` is the evaluation's `report.json`, `best` and `worst` are drawn faces.
    """

    model: str
    model_sha256: str
    spec: str
    spec_sha256: str
    code_version: str
    files: tuple[str, ...]
    report: Mapping[str, Any]
    best: tuple[FaceSummary, ...]
    worst: tuple[FaceSummary, ...]

    @property
    def model_name(self) -> str:
        return PurePath(self.model).name


@dataclass(frozen=True)
class EngineSummary:
    """One engine.

    Attributes:
        target: name in the catalogue; `title` says it in words.
        builder: name and exact version.
        precision: `fp32`, `fp16`, ...
        size_bytes: of the engine file.
        stage: where its pointer stands, such as `staging`; None where it was not put anywhere.
        parity_px: mean distance from Keras over all points, in network-input pixels; None where not run.
        parity_max_px: the largest distance of one point.
        graph_px: mean distance from Keras of the graph that the builder was given, run in ONNX Runtime; what is FP16
            in it is rounded as on a GPU.
        latency_ms: median of one face at a time; None where not run.
        not_run: why it was not run here; empty where it was.
    """

    target: str
    title: str
    builder: str
    precision: str
    size_bytes: int
    stage: str | None
    parity_px: float | None
    parity_max_px: float | None
    latency_ms: float | None
    graph_px: float
    not_run: str = ""


@dataclass(frozen=True)
class LaterEngine:
    """An engine that this machine can't build: a device of the target does, after review. `why`: what is missing."""

    target: str
    title: str
    builder: str
    why: str


@dataclass(frozen=True)
class GateResult:
    """A number and the bound it was held against; passed where `value <= bound`."""

    name: str
    value: float
    bound: float
    unit: str

    @property
    def passed(self) -> bool:
        return self.value <= self.bound


@dataclass(frozen=True)
class VerdictSummary:
    """The candidate against the champion, or against the absolute bounds: `tasks.verdict.Verdict`.

    `blocks`: who approves the version all the same has to say why.
    """

    state: str
    summary: str
    blocks: bool
    champion: str | None
    reasons: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True)
class StepSummary:
    """A step of the flow; `detail` is one line about its result."""

    name: str
    seconds: float
    state: Literal["ran", "reused", "resumed"]
    detail: str = ""


@dataclass(frozen=True)
class RunSummary:
    """Everything a person is shown about a run. All of it is JSON (`dataclasses.asdict`).

    Attributes:
        run_id, started_at: id and ISO 8601 time with zone.
        seconds: wall time of the whole run.
        snapshot_id: of the annotations.
        model_version: name and version in the registry, such as `fpenet/3`.
        code_version: of the project; `git_commit` where known.
        network: type and size in words.
        candidate, sources, splits, rejections, steps, gates, engines, verdict: see the classes.
        history: `model.checkpoint.EpochResult`s as mappings.
        evaluation: the evaluation's `report.json`.
        best, worst: drawn faces of the KPI set.
        later: engines that devices build after review; not those of `engines`.
    """

    run_id: str
    started_at: str
    seconds: float
    snapshot_id: str
    model_version: str
    code_version: str
    git_commit: str | None
    network: str
    candidate: CandidateSummary
    sources: tuple[SourceSummary, ...]
    splits: tuple[SplitSummary, ...]
    rejections: tuple[Rejection, ...]
    history: tuple[Mapping[str, Any], ...]
    evaluation: Mapping[str, Any]
    best: tuple[FaceSummary, ...]
    worst: tuple[FaceSummary, ...]
    engines: tuple[EngineSummary, ...]
    gates: tuple[GateResult, ...]
    steps: tuple[StepSummary, ...]
    verdict: VerdictSummary
    later: tuple[LaterEngine, ...] = ()

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


def rejections(violations: Iterable[Violation]) -> tuple[Rejection, ...]:
    """Violations by code, the most frequent first."""
    by_code: dict[str, list[Violation]] = defaultdict(list)
    for violation in violations:
        by_code[violation.code].append(violation)
    groups = [
        Rejection(
            code=code,
            rule=found[0].rule,
            count=len(found),
            records=len({violation.record for violation in found}),
            examples=tuple(found[:EXAMPLES]),
        )
        for code, found in by_code.items()
    ]
    return tuple(sorted(groups, key=lambda group: (-group.count, group.code)))
