"""One turn of work on a project: what the flows `sync`, `retrain` and `quality` have in common.

A turn that finds enough changes trains in its own process. A second run, started through Prefect, would have to take
over the lease, which the operating system ties to a process so that it is free when that dies; and it would work
only where a server and a worker are. This way it is the same on a laptop and on a trainer, and a killed turn leaves
nothing that waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path

from prefect.utilities.annotations import quote

from flows.candidate import load_experiment, make_candidate, require_readable
from flows.inspection import inspect_labels
from schemas.config import WorkflowConfig, load_config
from schemas.errors import SpecError
from tasks.failures import unless_failed
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

    A configuration is read when the work by it begins: it may have changed since this run did. Where one that another
    asks for is not on this machine, this run's is taken.

    Returns:
        What came of the last work of this kind; or who the request was left to.

    Raises:
        SpecError: see `flows.candidate.require_readable`.
        FpenetError: see `tasks.lease.take_turn`.
    """
    run = Run(read_settings(config, {kind}))
    own = this_request(kind, project_id, config=config)
    told: dict[Kind, str] = {}

    def work(requests: Sequence[Request]) -> None:
        kinds, asked = {request.kind for request in requests}, requests[0].config
        elsewhere = asked is not None and asked != own.config and Path(asked).is_file()
        path = asked if elsewhere else config
        settings = read_settings(path, kinds)
        require_same_workspace(path, settings, run)
        if kinds == {"quality"}:
            outcome = inspect_labels(settings)
        elif "retrain" in kinds:
            outcome = make_candidate(settings)
        else:
            decision = look(Run(settings), path, requests)
            retrains = decision.outcome is Outcome.RETRAIN
            outcome = make_candidate(settings) if retrains else f"{decision.outcome}: {decision.reason}"
        told.update(dict.fromkeys(kinds, outcome))

    with present(run.workspace.lease):
        left_to = take_turn(Lease(run.workspace.lease), own, work)
    return tell_left(run, left_to) if left_to else told[kind]


def read_settings(config: str, kinds: Set[Kind]) -> WorkflowConfig:
    """The configuration, with all that this work needs of it.

    Raises:
        SpecError: it can't be read; or see `flows.candidate.require_readable`.
    """
    settings = load_config(config)
    if kinds != {"quality"}:
        require_readable(settings)
    return settings


def require_same_workspace(config: str, settings: WorkflowConfig, run: Run) -> None:
    """Refuse to work in a workspace whose lease `run` does not hold.

    Raises:
        SpecError: the configuration has got another workspace since it was asked for.
    """
    if Path(settings.workspace).resolve() != run.workspace.root.resolve():
        held = f"but {run.workspace.root} when it was asked for; run the command again"
        raise SpecError(f"{config}: workspace", f"is {settings.workspace} now, {held}")


def look(run: Run, config: str, requests: Sequence[Request]) -> Decision:
    """Whether enough has changed; if it is not quiet yet, see that somebody looks again when it will be."""
    if not concerned(run, requests):
        return tell_look(run, unconcerned(requests))
    pulls = pull_for(run, requests)
    validation = validate_records(run, pulls)
    comparisons = compare_with_models(run, quote(validation))
    decision = decide_now(run, pulls, quote(comparisons))
    if decision.outcome is Outcome.RETRAIN:
        decision = unless_failed(decision, run, load_experiment(run.config), validation)
    again = look_again(config, requests, decision.wait_s) if decision.outcome is Outcome.NOT_QUIET else ""
    return tell_look(run, Look(decision, pulls, comparisons, again))
