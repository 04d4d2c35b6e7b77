"""From annotations to a page of what is wrong with them: a turn of work on a project for the flow `quality`."""

from __future__ import annotations

from prefect.utilities.annotations import quote

from schemas.config import WorkflowConfig
from tasks.quality_steps import (
    QualityResults,
    find_copies,
    measure_annotators,
    send_tasks_back,
    show_quality,
    suspect_labels,
)
from tasks.run import Run
from tasks.steps import pull_source, validate_records


def inspect_labels(settings: WorkflowConfig) -> str:
    """Pull, validate, compare annotators, send tasks back, look for label errors and duplicates, show it all.

    Nothing is trained or staged, and no label is changed: people decide what is wrong. So nothing stops at
    `validation.max_rejected_share` either: the page tells what was rejected. Called inside a flow that holds the
    project's lease.

    Returns:
        Path of the run's page.

    Raises:
        FpenetError: see `schemas.errors`.
    """
    lenient = settings.validation.model_copy(update={"max_rejected_share": 1.0})
    run = Run(settings.model_copy(update={"validation": lenient}))
    pulls = [pull_source(run, source) for source in run.config.sources]
    validation = validate_records(run, pulls)
    agreement = measure_annotators(run, quote(validation), pulls)
    sent_back = send_tasks_back(run, pulls, quote(agreement))
    label_errors = suspect_labels(run, quote(validation))
    duplicates = find_copies(run, quote(validation))
    results = QualityResults(pulls, validation, agreement, label_errors, duplicates, sent_back)
    return str(show_quality(run, quote(results)))
