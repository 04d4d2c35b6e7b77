"""The Prefect tasks of the flow `review`."""

from __future__ import annotations

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.events import emit_event

from tasks.gateway.outgoing import MODEL_RESOURCE
from tasks.review.inbox import Inbox, note_told, settle
from tasks.run import Run
from tasks.steps import step_task

MOVED_BY_HAND = "fpenet.review.alias-moved-by-hand"
ACCEPTED = "fpenet.review.accepted"


@step_task(name="settle reviews")
def settle_reviews(run: Run) -> Inbox:
    with run.step("review") as step:
        inbox = settle(run.config.tracking, run.workspace, run.config.review)
        step.found(not inbox.accepted)
        step.detail = str(inbox)
    return inbox


@step_task(name="tell reviews")
def tell_reviews(run: Run, inbox: Inbox) -> None:
    """What is open as a table in Prefect; an event for each version accepted, one for each alias moved by hand."""
    name = run.config.tracking.registered_model
    resource = {"prefect.resource.id": f"{MODEL_RESOURCE}{name}", "prefect.resource.name": name}
    for accepted in inbox.accepted:
        payload = {"version": accepted.version, "by": accepted.by, "report": accepted.report}
        emit_event(ACCEPTED, resource, payload=payload)
    for moved in (moved for moved in inbox.moved if not moved.told):
        get_run_logger().warning(str(moved))
        run.console.print(f"[yellow]note[/yellow] {moved}", soft_wrap=True)
        payload = {"alias": moved.alias, "recorded": moved.recorded, "found": moved.found}
        emit_event(MOVED_BY_HAND, resource, payload=payload)
    table = [
        {"version": found.version, "gate": found.gate or "", "state": str(found.decision)} for found in inbox.open
    ]
    create_table_artifact(
        table or [{"version": "", "gate": "", "state": "nothing is open"}],
        key="review",
        description="\n".join([str(inbox), *map(str, inbox.moved)]),
    )
    note_told(inbox, run.config.tracking, run.workspace)
