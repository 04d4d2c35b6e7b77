"""The flow `review`: what people decided in MLflow's registry, and what follows from it."""

from __future__ import annotations

from prefect import flow
from prefect.utilities.annotations import quote

from flows.rollout import rollout
from schemas.config import load_config
from tasks.lease import present
from tasks.review.approval import accepted_version
from tasks.review_steps import settle_reviews, tell_reviews
from tasks.run import Run


@flow(name="review", persist_result=False)
def review(config: str) -> str:
    """Look at the tags of all versions, act on approvals and rejections, and bring an accepted version to devices.

    Whatever woke it is a hint: the tags decide (`tasks.review.approval`). Of two runs one waits for the other; a run
    that finds nothing new changes nothing. An approval that does not hold is answered on the version, in the tag
    `review.state`, and fails no run.

    Args:
        config: path of a configuration (`schemas.config.WorkflowConfig`).

    Returns:
        What came of it, for people, and of the rollout where there is an accepted version.

    Raises:
        FpenetError: see `schemas.errors`.
    """
    run = Run(load_config(config))
    with present(run.workspace.lease):
        inbox = settle_reviews(run)
        tell_reviews(run, quote(inbox))
    return f"{inbox}; rollout: {rollout(config)}" if accepted_version(run.workspace) else str(inbox)
