"""The page that a reviewer decides with, logged as `review/index.html` of the version's run in MLflow, with the model
card beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.paired import Outcome
from schemas.config import ReviewSettings, Tracking
from schemas.experiment import ExperimentSpec
from schemas.storage import sha256_of, write_bytes, write_json
from tasks.mlflow_client import mlflow_client
from tasks.model_card import CARD
from tasks.pages import render_page
from tasks.paired_scores import FACES, ScoredFaces, read_faces
from tasks.reuse import reuse_or_run, step_key
from tasks.review.approval import decide
from tasks.review.faces import draw_faces, most_changed
from tasks.review.tags import (
    APPROVED,
    BY,
    COMPARED_WITH,
    NOBODY,
    OVERRIDE,
    REASON,
    REJECTED,
    REPORT,
    REPORT_HASH,
    REVIEW,
    STATE,
)
from tasks.summary import EngineSummary, LaterEngine, RunSummary, SourceSummary, SplitSummary
from tasks.tracking import RegisteredVersion
from tasks.verdict import ARTIFACT_FOLDER, State, Verdict
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient


PAGE, DATA = "index.html", "report.json"
SHOWN_FACES = 6
NAMED = 4
"""Rows that the headline names."""


@dataclass(frozen=True)
class ReviewData:
    """What the page says in numbers. JSON.

    Attributes:
        verdict: `verdict.json`, without its key.
        evaluation: the challenger's `report.json`.
        engines: those that were built here; `later` are built on devices, after review.
        sources, splits: annotations by source, faces and subjects by split.
        parents: what it was made from, in words -> id.
        network: type and size in words.
    """

    verdict: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    engines: tuple[EngineSummary, ...]
    later: tuple[LaterEngine, ...]
    sources: tuple[SourceSummary, ...]
    splits: tuple[SplitSummary, ...]
    parents: Mapping[str, str]
    network: str

    @property
    def report(self) -> str:
        """The hash that an approval names: of verdict, evaluation and engines, which the decision is about.

        How many records a source holds may change from day to day without changing the candidate, and how long a face
        took says what else this machine did: both are shown, and change no hash.
        """
        engines = [dataclasses.asdict(replace(engine, latency_ms=None)) for engine in self.engines]
        return sha256_of({"verdict": self.verdict, "evaluation": self.evaluation, "engines": engines})


@dataclass(frozen=True, eq=False)
class Review:
    """A version to be reviewed.

    Attributes:
        data: what the page says.
        verdict: of the gate.
        files: the KPI shards that it is about, and how they are read.
        spec: the challenger's.
        settings: how long an approval holds.
        card: the model card, Markdown.
    """

    data: ReviewData
    verdict: Verdict
    files: Sequence[Path]
    spec: ExperimentSpec
    settings: ReviewSettings
    card: str


@dataclass(frozen=True)
class LoggedPage:
    """Attributes:
    file: in the workspace.
    report: hash that an approval names.
    reused: True if all of it stood in MLflow already.
    """

    file: Path
    report: str
    reused: bool


def review_data(summary: RunSummary, verdict: Verdict, parents: Mapping[str, str]) -> ReviewData:
    """Out of what the run's page says."""
    apart = ("key", "directory", "reused")
    told = {name: value for name, value in dataclasses.asdict(verdict).items() if name not in apart}
    return ReviewData(
        verdict=told,
        evaluation=summary.evaluation,
        engines=summary.engines,
        later=summary.later,
        sources=summary.sources,
        splits=summary.splits,
        parents=dict(parents),
        network=summary.network,
    )


def log_page(
    review: Review, registered: RegisteredVersion, tracking: Tracking, workspace: Workspace
) -> LoggedPage | None:
    """Draw the page, log it and the card beside the version, unless they stand there; the champion's are left as they
    were approved.

    The artifacts come first, then the hash: whoever sees the hash finds the report. `review.state` says what the
    reviewer has to do.

    Returns:
        None for the champion.

    Raises:
        ShardError: a shard can't be read.
        TrackingError: MLflow can't be reached, or refuses a request.
    """
    if review.verdict.state is State.IS_CHAMPION:
        return None
    content = dataclasses.asdict(review.data)
    days = review.settings.valid_days
    hashes = {"data": sha256_of(content), "card": sha256_of(review.card)}
    key = step_key("review page", code="tasks.review.page", days=days, **hashes)

    def draw(directory: Path) -> dict[str, Any]:
        write_bytes(directory / PAGE, render(review).encode())
        write_json(directory / DATA, content)
        write_bytes(directory / CARD, review.card.encode())
        return {"report": review.data.report}

    output = reuse_or_run(workspace.review_pages, key, draw)
    with mlflow_client(tracking, workspace) as client:
        stands = output.reused and _stands(client, review, registered)
        if not stands:
            _log(client, review, registered, output.directory)
    return LoggedPage(output.directory / PAGE, review.data.report, stands)


def _stands(client: MlflowClient, review: Review, registered: RegisteredVersion) -> bool:
    tags = client.get_model_version(registered.name, registered.version).tags
    champion = review.verdict.champion or NOBODY
    return tags.get(REPORT_HASH) == review.data.report and tags.get(COMPARED_WITH) == champion


def _log(client: MlflowClient, review: Review, registered: RegisteredVersion, directory: Path) -> None:
    for file in (PAGE, DATA, CARD):
        client.log_artifact(registered.run_id, str(directory / file), ARTIFACT_FOLDER)
    name, version, champion = registered.name, registered.version, review.verdict.champion
    client.set_model_version_tag(name, version, COMPARED_WITH, champion or NOBODY)
    client.set_model_version_tag(name, version, REPORT_HASH, review.data.report)
    tags, days = client.get_model_version(name, version).tags, review.settings.valid_days
    state = decide(tags, version=version, champion=champion, now=datetime.now(UTC), valid_days=days)
    client.set_model_version_tag(name, version, STATE, str(state))


def render(review: Review) -> str:
    """The page."""
    from model.review_charts import curves_chart, paired_chart

    verdict, data = review.verdict, review.data
    scored = read_faces(verdict.directory) if (verdict.directory / FACES).is_file() else None
    worse, better = most_changed(scored, SHOWN_FACES) if scored else ([], [])
    drawn = draw_faces(scored, [*worse, *better], review.files, review.spec) if scored else []
    dimensions = dict.fromkeys(row.dimension for row in verdict.rows)
    rows = {name: [row for row in verdict.rows if row.dimension == name] for name in dimensions}
    measured = {name: found for name, found in rows.items() if any(row.challenger_px is not None for row in found)}
    return render_page(
        "review/page.html",
        data=data,
        verdict=verdict,
        headline=headline(verdict),
        report=data.report,
        card=CARD,
        approve=_tags_to_set(verdict, data.report),
        reject={BY: "your name", REASON: "what is wrong with it", REVIEW: REJECTED},
        valid_days=review.settings.valid_days,
        rows=rows,
        charts={name: paired_chart(found) for name, found in measured.items()},
        curves=curves_chart(_curves(scored, verdict)) if scored else None,
        counts=_counts(scored),
        worse=drawn[: len(worse)],
        better=drawn[len(worse) :],
    )


def headline(verdict: Verdict) -> str:
    """The verdict in one sentence, and in another what it does not cover."""
    small = [row.title for row in verdict.rows if row.outcome is Outcome.TOO_FEW]
    return _verdict_words(verdict) + (f" Too few subjects to say anything of: {_named(small)}." if small else "")


def _verdict_words(verdict: Verdict) -> str:
    against = f"the champion, version {verdict.champion}" if verdict.champion else "the absolute bounds"
    bad = [row.title for row in verdict.rows if row.outcome == verdict.state]
    names = _named(bad)
    match verdict.state:
        case State.PASSED if verdict.champion:
            return f"Passed: nowhere worse than {against}, by more than is allowed."
        case State.PASSED:
            return "Passed: there is no champion yet, and every region is within the absolute bounds."
        case State.FAILED if verdict.champion:
            return f"Failed: in {names} it may be worse than {against}, by more than is allowed."
        case State.FAILED:
            return f"Failed: there is no champion yet, and the error may be beyond the absolute bounds in {names}."
        case State.INCONCLUSIVE:
            return f"Inconclusive: {names} hold too few subjects to compare it with {against}."
        case _:
            return f"Not comparable with {against}: nothing was measured side by side."


def _named(rows: Sequence[str]) -> str:
    return ", ".join(rows[:NAMED]) + (f" and {len(rows) - NAMED} more" if len(rows) > NAMED else "")


def _tags_to_set(verdict: Verdict, report: str) -> dict[str, str]:
    """In the order in which they are best set: `review` last, so that no flow sees a half."""
    tags = {BY: "your name", REASON: "why it may go to the devices", REPORT: report}
    if verdict.blocks:
        tags[OVERRIDE] = f"why it may although the gate says {verdict.state}"
    return tags | {REVIEW: APPROVED}


def _curves(scored: ScoredFaces, verdict: Verdict) -> dict[str, Any]:
    curves = {f"version {verdict.version}": scored.challenger_px_F}
    if scored.champion_px_F is not None:
        curves[f"champion, version {verdict.champion}"] = scored.champion_px_F
    return curves


def _counts(scored: ScoredFaces | None) -> dict[str, int] | None:
    """Faces whose error fell and rose."""
    if scored is None or scored.champion_px_F is None:
        return None
    change_F = scored.challenger_px_F - scored.champion_px_F
    return {"better": int((change_F < 0).sum()), "worse": int((change_F > 0).sum())}
