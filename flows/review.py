"""The flow `review`: what people decided in MLflow's registry, and what follows from it."""

from __future__ import annotations

from prefect import flow
from prefect.utilities.annotations import quote

from flows.rollout import rollout
from schemas.config import load_config
from schemas.errors import SourceEmptyError
from tasks.fleet.pending import has_work, is_new
from tasks.fleet.steps import DEPLOYMENT, is_deployed, start_deployed
from tasks.lease import present
from tasks.review.approval import accepted_version
from tasks.review_steps import settle_reviews, tell_reviews
from tasks.run import Run


@flow(name="review", persist_result=False)
def review(config: str, rollout_deployment: str = DEPLOYMENT) -> str:
    """Look at the tags of all versions, act on approvals and rejections, and bring an accepted version to devices.

    Whatever woke it is a hint: the tags decide (`tasks.review.approval`). Of two runs one waits for the other; a run
    that finds nothing new changes nothing. An approval that does not hold is answered on the version, in the tag
    `review.state`, and fails no run. A rollout is started where one has work left; one that has begun is gone on with
    by the schedule of its deployment, where it has one.

    Args:
        config: path of a configuration (`schemas.config.WorkflowConfig`).
        rollout_deployment: of the flow `rollout`, which is started; another where `prefect.yaml` names it otherwise.

    Returns:
        What came of it, for people, and of the rollout where one was started.

    Raises:
        FpenetError: see `schemas.errors`.
    """
    run = Run(load_config(config))
    with present(run.workspace.lease):
        inbox = settle_reviews(run)
        tell_reviews(run, quote(inbox))
    return "; rollout: ".join(filter(None, (str(inbox), go_on(run, config, rollout_deployment))))


def go_on(run: Run, config: str, deployment: str) -> str:
    """Start a rollout where one has work left that nothing else starts.

    Returns:
        What came of it, for people; '' where there is none.
    """
    accepted, rollouts = accepted_version(run.workspace), run.workspace.rollouts
    if not has_work(accepted, list(run.config.targets), rollouts):
        return ""
    begins = accepted is not None and is_new(accepted, rollouts)
    if begins or not is_deployed(deployment):
        return to_devices(config, deployment)
    return f"left to the schedule of {deployment}"


def to_devices(config: str, deployment: str) -> str:
    """Start a rollout: as a run of its own where it is deployed, so that none waits here for a build; or inline.

    Returns:
        What came of it, for people: also that the faces to compare on are in another workspace.
    """
    if started := start_deployed(config, deployment):
        return started
    try:
        return rollout(config)
    except SourceEmptyError as error:
        return f"not here: {error}"
