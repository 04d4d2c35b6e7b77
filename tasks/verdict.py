"""The gate of a candidate: challenger against champion on the challenger's frozen KPI faces.

A verdict that is not "passed" stops nothing by itself: the version is registered, built and staged, and its reviewer
is told. Who approves it all the same has to say why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from model.paired import Outcome, Row, overall
from schemas.config import Tracking, WorkflowConfig
from schemas.experiment import ExperimentSpec
from schemas.promotion_rules import PromotionRules, load_rules
from schemas.records import Split
from schemas.storage import read_json, sha256_file, write_json
from tasks.champion import CurrentModel
from tasks.convert import Conversion
from tasks.mlflow_client import mlflow_client
from tasks.opponent import as_contender, champion_of
from tasks.paired_scores import Contender, score_pair
from tasks.reuse import StepOutput, reuse_or_run, step_key
from tasks.review.tags import GATE, GATE_SUMMARY, NOBODY, REPORT_HASH
from tasks.tracking import RegisteredVersion
from tasks.train import MODEL
from tasks.workspace import Workspace

GATE_CHAMPION, GATE_RULES = "gate.champion", "gate.rules_sha256"
VERDICT, ARTIFACT_FOLDER = "verdict.json", "review"
WORDED = 3
"""Rows that the summary names."""


class State(StrEnum):
    """What became of a candidate at the gate. Without a champion it passes or fails by the absolute bounds."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    NOT_COMPARABLE = "not comparable"
    IS_CHAMPION = "is the champion"


@dataclass(frozen=True)
class Verdict:
    """What was found, all of it in `verdict.json` but the last two.

    Attributes:
        key: names the comparison: both models, the KPI faces, the rules and the code.
        summary: one line that names no person, for a tag.
        reasons: why it could not be compared, and what to do; may name subjects.
        model, version: of the registry.
        champion: version of the registry; None where no version was accepted yet.
        snapshot_id: whose KPI faces were used.
        faces, subjects: of the whole KPI set; 0 where nothing was measured.
        rows: regions, then slices; against the absolute bounds where there is no champion.
        rules: what was asked (`schemas.promotion_rules.PromotionRules` as JSON).
        directory: holds `verdict.json` and, where something was measured, the `faces.parquet` that
            `tasks.paired_scores.read_faces` reads.
        reused: True if an earlier run had found it.
    """

    key: str
    state: State
    summary: str
    reasons: tuple[str, ...]
    model: str
    version: str
    champion: str | None
    snapshot_id: str
    faces: int
    subjects: int
    rows: tuple[Row, ...]
    rules: Mapping[str, Any]
    rules_sha256: str
    directory: Path
    reused: bool

    @property
    def blocks(self) -> bool:
        """An approval needs an override that says why."""
        return self.state not in (State.PASSED, State.IS_CHAMPION)

    @property
    def file(self) -> Path:
        return self.directory / VERDICT


def judge(
    config: WorkflowConfig,
    workspace: Workspace,
    *,
    spec: ExperimentSpec,
    conversion: Conversion,
    trained: StepOutput,
    registered: RegisteredVersion,
) -> Verdict:
    """Compare a registered version with the champion, and put the verdict beside it in MLflow.

    The same models, faces, rules and code are not measured again. The champion itself is not judged: what stands
    beside it from its time as a challenger stays.

    Raises:
        SpecError: the rules can't be read.
        TrackingError: MLflow can't be reached, or refuses a request.
    """
    rules, champion = load_rules(config.promotion_rules), champion_of(config.tracking, workspace)
    challenger = Contender(trained.directory / MODEL, spec, spec.dataloader.bbox_enlarge_ratio)
    case = _Case(registered, champion, conversion, rules, challenger)
    if champion is not None and champion.version == registered.version:
        return _keep(case, workspace, lambda _: _Finding(State.IS_CHAMPION, "it is the champion"), of="champion")
    opponent, obstacles = None, ()
    if champion is not None:
        opponent, obstacles = as_contender(champion, spec, conversion, config.tracking, workspace)
    if obstacles:
        finding = _Finding(State.NOT_COMPARABLE, f"not comparable with version {champion.version}", obstacles)
        verdict = _keep(case, workspace, lambda _: finding, of=list(obstacles))
    else:
        verdict = _keep(case, workspace, lambda directory: _measure(case, opponent, directory), of="faces")
    _tell(verdict, config.tracking, workspace, registered)
    return verdict


@dataclass(frozen=True, eq=False)
class _Case:
    """What is to be judged, against whom, on what, by what."""

    registered: RegisteredVersion
    champion: CurrentModel | None
    conversion: Conversion
    rules: PromotionRules
    challenger: Contender

    @property
    def inputs(self) -> dict[str, Any]:
        """Whatever the verdict depends on."""
        return {
            "version": [self.registered.name, self.registered.version],
            "challenger": sha256_file(self.challenger.model),
            "champion": self.champion and [self.champion.version, self.champion.run_id],
            "shards": self.conversion.hashes(Split.KPI),
            "ratio": self.challenger.ratio,
            "size": self.challenger.spec.dataloader.image_info.image.height,
            "rules": self.rules.sha256,
        }

    @property
    def told(self) -> dict[str, Any]:
        """The part of a verdict that does not depend on what is found."""
        return {
            "model": self.registered.name,
            "version": self.registered.version,
            "champion": self.champion and self.champion.version,
            "snapshot_id": self.conversion.result["snapshot"],
            "rules": self.rules.model_dump(mode="json"),
            "rules_sha256": self.rules.sha256,
        }


@dataclass(frozen=True)
class _Finding:
    state: State
    summary: str
    reasons: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()


def _keep(case: _Case, workspace: Workspace, find: Callable[[Path], _Finding], *, of: str | list[str]) -> Verdict:
    """The verdict under its key, found now or before. `of`: what besides the models, faces and rules decides it."""
    key = step_key("verdict", code=__name__, of=of, **case.inputs)

    def run(directory: Path) -> dict[str, Any]:
        finding = find(directory)
        whole = finding.rows[0] if finding.rows else None  # the region All comes first
        sizes = {"faces": whole.faces if whole else 0, "subjects": whole.subjects if whole else 0}
        told = {"key": key, **case.told, **dataclasses.asdict(finding), **sizes}
        write_json(directory / VERDICT, told)
        return told

    output = reuse_or_run(workspace.verdicts, key, run)
    return _as_verdict(output.result, output.directory, reused=output.reused)


def read_verdict(directory: Path) -> Verdict:
    """A verdict that was found before, from its directory."""
    return _as_verdict(read_json(directory / VERDICT), directory, reused=True)


def _as_verdict(told: Mapping[str, Any], directory: Path, *, reused: bool) -> Verdict:
    from pydantic import TypeAdapter

    return TypeAdapter(Verdict).validate_python({**told, "directory": directory, "reused": reused})


def _measure(case: _Case, opponent: Contender | None, directory: Path) -> _Finding:
    rows = score_pair(case.challenger, opponent, case.conversion.files[Split.KPI], case.rules, directory)
    state = State(overall(rows))
    return _Finding(state, _summary(case, state, rows) + _small_slices(rows), rows=rows)


def _summary(case: _Case, state: State, rows: Sequence[Row]) -> str:
    whole, champion = rows[0], case.champion
    against = f"against version {champion.version}" if champion else "by the absolute bounds, without a champion"
    start = f"{state} {against} on {whole.faces:,} faces of {whole.subjects:,} subjects"
    if state is State.PASSED:
        return f"{start}: {_words(whole)}"
    bad = [row for row in rows if row.outcome == state]
    if state is State.INCONCLUSIVE:
        return f"{start}: under {case.rules.minimum_subjects} subjects, or faces of unknown ones, in {_sizes(bad)}"
    return f"{start}: {'; '.join(map(_words, bad[:WORDED]))}{_more(bad)}"


def _small_slices(rows: Sequence[Row]) -> str:
    small = [row for row in rows if row.outcome is Outcome.TOO_FEW]
    return f"; too few subjects, shown only: {_sizes(small)}" if small else ""


def _sizes(rows: Sequence[Row]) -> str:
    return ", ".join(f"{row.title} ({row.subjects})" for row in rows[:WORDED]) + _more(rows)


def _more(rows: Sequence[Row]) -> str:
    return f" and {len(rows) - WORDED} more" if len(rows) > WORDED else ""


def _words(row: Row) -> str:
    value = row.challenger_px if row.difference_px is None else row.difference_px
    sign = "" if row.difference_px is None else "+"
    return f"{row.title} {value:{sign}.3f} px, at most {row.high_px:{sign}.3f}, allowed {row.allowance_px:g}"


def _tell(verdict: Verdict, tracking: Tracking, workspace: Workspace, registered: RegisteredVersion) -> None:
    """The artifact first: whoever sees the tags finds it.

    Where they change, the report that stands there is about another verdict: its hash goes before they come, so that
    no approval of it is taken for one of this verdict. `tasks.review.page.log_page` sets the new one.
    """
    tags = {
        GATE_CHAMPION: verdict.champion or NOBODY,
        GATE_RULES: verdict.rules_sha256,
        GATE_SUMMARY: verdict.summary,
        GATE: str(verdict.state),
    }
    with mlflow_client(tracking, workspace) as client:
        client.log_artifact(registered.run_id, str(verdict.file), ARTIFACT_FOLDER)
        there = client.get_model_version(registered.name, registered.version).tags
        changed = {name: value for name, value in tags.items() if there.get(name) != value}
        if changed and REPORT_HASH in there:
            client.delete_model_version_tag(registered.name, registered.version, REPORT_HASH)
        for name, value in changed.items():
            client.set_model_version_tag(registered.name, registered.version, name, value)
