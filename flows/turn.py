"""One turn of work on a project: what the flows `sync`, `retrain` and `quality` have in common.

A turn that finds enough changes trains in its own process. A second run, started through Prefect, would have to take
over the lease, which the operating system ties to a process so that it is free when that dies; and it would work
only where a server and a worker are. This way it is the same on a laptop and on a trainer, and a killed turn leaves
nothing that waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from prefect.utilities.annotations import quote

from flows.candidate import make_candidate, require_readable
from flows.inspection import inspect_labels
from schemas.config import load_config
from tasks.lease import Kind, Lease, Request, present, take_turn
from tasks.run import Run
from tasks.steps import validate_records
from tasks.sync_decision import Decision, Outcome
from tasks.sync_steps import (
    Look,
    compare_with_models,
    concerned,
    decide_now,
    look_again,
    pull_for,
    tell_left,
    tell_look,
    this_request,
    unconcerned,
)


def work_on_project(config: str, kind: Kind, *, project_id: int | None = None) -> str:
    """Do what the flow is for under the project's lease, and what others ask for; or leave it to who has the lease.

    Returns:
        What came of the last work of this kind; or who the request was left to.

    Raises:
        SpecError: see `flows.candidate.require_readable`.
        FpenetError: see `tasks.lease.take_turn`.
    """
    settings = load_config(config)
    if kind != "quality":
        require_readable(settings)
    run = Run(settings)
    told: dict[Kind, str] = {}

    def work(requests: Sequence[Request]) -> None:
        kinds = {request.kind for request in requests}
        if kinds == {"quality"}:
            outcome = inspect_labels(settings)
        elif "retrain" in kinds:
            outcome = make_candidate(settings)
        else:
            decision = look(run, config, requests)
            retrains = decision.outcome is Outcome.RETRAIN
            outcome = make_candidate(settings) if retrains else f"{decision.outcome}: {decision.reason}"
        told.update(dict.fromkeys(kinds, outcome))

    with present(run.workspace.lease):
        left_to = take_turn(Lease(run.workspace.lease), this_request(kind, project_id), work)
    return tell_left(run, left_to) if left_to else told[kind]


def look(run: Run, config: str, requests: Sequence[Request]) -> Decision:
    """Whether enough has changed; if it is not quiet yet, see that somebody looks again when it will be."""
    if not concerned(run, requests):
        return tell_look(run, unconcerned(requests))
    pulls = pull_for(run, requests)
    validation = validate_records(run, pulls)
    comparisons = compare_with_models(run, quote(validation))
    decision = decide_now(run, pulls, quote(comparisons))
    again = look_again(config, requests, decision.wait_s) if decision.outcome is Outcome.NOT_QUIET else ""
    return tell_look(run, Look(decision, pulls, comparisons, again))
