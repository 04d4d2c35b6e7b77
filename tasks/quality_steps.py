"""The Prefect tasks of the flow `quality`, in the manner of `tasks.steps`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path

from model.region_error import Unit
from schemas.errors import SplitError, SubjectLeakError
from schemas.records import Split
from tasks.pull import PullResult
from tasks.quality.agreement import AgreementReport, report_agreement
from tasks.quality.compare import annotator_prefixes, compare, reviewed_records
from tasks.quality.duplicates import find_duplicates
from tasks.quality.findings import Duplicates, LabelErrors
from tasks.quality.label_errors import find_label_errors
from tasks.quality.page import draw_pictures, write_quality_page
from tasks.quality.send_back import SentBack, link_of, places, send_back
from tasks.quality.summary import FacePicture, QualitySummary
from tasks.run import Run
from tasks.splits import assign_splits
from tasks.steps import server_task, step_task
from tasks.summary import rejections
from tasks.validate import Validation


@dataclass(frozen=True, eq=False)
class QualityResults:
    """What the steps of a run gave."""

    pulls: Sequence[PullResult]
    validation: Validation
    agreement: AgreementReport
    label_errors: LabelErrors
    duplicates: Duplicates
    sent_back: tuple[SentBack, ...]


@step_task(name="agreement")
def measure_annotators(run: Run, validation: Validation, pulls: Sequence[PullResult]) -> AgreementReport:
    with run.step("agreement") as step:
        compared = compare(validation.faces, validation.superseded, annotator_prefixes(run.config.sources))
        reviewed = reviewed_records(result.raw for result in pulls) if compared.views else frozenset()
        report = report_agreement(compared, run.config.quality, reviewed)
        step.detail = _agreement_detail(report)
    return report


@step_task(name="label errors")
def suspect_labels(run: Run, validation: Validation) -> LabelErrors:
    with run.step("label errors") as step:
        found = find_label_errors(validation.faces, run.config.quality)
        kinds = Counter(suspect.kind for suspect in found.suspects)
        shown = ", ".join(f"{kind} {number:,}" for kind, number in sorted(kinds.items()))
        step.detail = f"{len(found.suspects):,} suspicious labels" + (f": {shown}" if shown else "")
    return found


@step_task(name="duplicates")
def find_copies(run: Run, validation: Validation) -> Duplicates:
    with run.step("duplicates") as step:
        splits, notes = _splits(run, validation)
        found = find_duplicates(
            validation.faces, run.config.quality, splits=splits, memory=run.workspace.face_signatures
        )
        crossing = sum(pair.crosses is not None for pair in found.pairs)
        named = sum(pair.subjects_known for pair in found.pairs)
        step.detail = (
            f"{len(found.pairs):,} pairs look the same: {named:,} of different subjects, "
            f"{len(found.pairs) - named:,} of unknown ones"
            + (f"; {crossing:,} in different splits" if splits is not None else "")
        )
    return replace(found, notes=(*notes, *found.notes))


@server_task(name="send back")
def send_tasks_back(run: Run, pulls: Sequence[PullResult], agreement: AgreementReport) -> tuple[SentBack, ...]:
    title = run.config.quality.view
    with run.step("send back") as step:
        servers = places(run.config.sources, pulls)
        records = [dispute.record for dispute in agreement.open_disputes]
        sent = send_back(records, servers, title) if title else ()
        shown = ", ".join(f"{len(tab.tasks)} tasks of {tab.source} in the tab '{tab.title}'" for tab in sent)
        step.detail = shown or ("switched off" if servers else "no source is a server; the page lists the tasks")
    return sent


@step_task(name="quality page")
def show_quality(run: Run, results: QualityResults) -> Path:
    directory = run.workspace.quality / run.id
    faces = chain(results.validation.faces, results.validation.superseded)
    with run.step("page") as step:
        drawn = draw_pictures(
            results.agreement.disputes, results.label_errors.suspects, results.duplicates.pairs, faces
        )
        step.detail = f"{len(drawn.pictures)} faces drawn" + (
            f", {drawn.skipped} left out: their images can't be read any more" if drawn.skipped else ""
        )
    page = write_quality_page(_summary(run, results, drawn.pictures), drawn.pngs, directory)
    run.console.print(f"page: {page}")
    return page


def _splits(run: Run, validation: Validation) -> tuple[list[Split] | None, tuple[str, ...]]:
    """The split of every face, and what to say where they can't be split: labels can be looked at all the same."""
    try:
        return assign_splits(validation.faces, run.config.split), ()
    except (SplitError, SubjectLeakError) as error:
        return None, (f"Pairs are not held against splits: {error}",)


def _agreement_detail(report: AgreementReport) -> str:
    found = report.agreement
    if found is None:
        return report.notes[0]
    whole = found.regions["All"]
    in_units = {Unit.INTER_OCULAR: "{:.2f} % of inter-ocular", Unit.CROP: "{:.2f} crop px"}
    unit = next(unit for unit in in_units if unit in whole.spread)
    kappa = whole.flags.kappa.value
    return (
        f"{found.faces:,} faces with several of {len(found.annotators)} annotators: "
        f"{in_units[unit].format(whole.spread[unit].value)} apart, kappa "
        f"{'undefined' if kappa is None else f'{kappa:.2f}'}, {len(report.open_disputes):,} in dispute"
    )


def _summary(run: Run, results: QualityResults, pictures: tuple[FacePicture, ...]) -> QualitySummary:
    servers = places(run.config.sources, results.pulls)
    keys = {
        *(dispute.record for dispute in results.agreement.disputes),
        *(suspect.source_key for suspect in results.label_errors.suspects),
        *(key for pair in results.duplicates.pairs for key in (pair.first, pair.second)),
    }
    links = {key: link for key in sorted(keys) if (link := link_of(key, servers))}
    return QualitySummary(
        run_id=run.id,
        started_at=run.started.isoformat(timespec="seconds"),
        seconds=time.time() - run.started.timestamp(),
        num_keypoints=run.config.num_keypoints,
        code_version=version("fpenet-workflow"),
        sources=tuple(source.name for source in run.config.sources),
        counts=results.validation.counts,
        rejections=rejections(results.validation.violations),
        settings=run.config.quality.model_dump(),
        agreement=results.agreement,
        label_errors=results.label_errors,
        duplicates=results.duplicates,
        sent_back=results.sent_back,
        steps=tuple(run.steps),
        links=links,
        pictures=pictures,
    )
