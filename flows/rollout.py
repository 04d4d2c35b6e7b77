"""The flow `rollout`: the accepted version to every device."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from schemas.config import load_config
from tasks.fleet.steps import bring_up, choose_rollout, finish_rolling_back, roll_out, tell_rollout
from tasks.lease import Lease, Request, present, take_turn
from tasks.run import Run
from tasks.sync_steps import this_request

TARGETS_AT_ONCE = 8


@flow(name="rollout", persist_result=False, task_runner=ThreadPoolTaskRunner(max_workers=TARGETS_AT_ONCE))
def rollout(config: str, version: str | None = None) -> str:
    """Bring the version that was accepted last to the devices, target by target; go on with what is left of it.

    Run again, it does what an earlier run could not: devices that were offline, targets that it was killed in. Every
    run also measures devices that do not run what their stage says, and brings up those that pass. With nothing left
    to do it returns at once. If another run is at it, the request is left to that run.

    Args:
        config: path of a configuration (`schemas.config.WorkflowConfig`).
        version: of the registered model, to begin its rollout anew: what was gated or failed is tried again. It needs
            an approval that holds. None takes the version that was accepted last.

    Returns:
        Path of the rollout's page; or why there was nothing to do, or who the request was left to.

    Raises:
        ReviewError: `version` has no approval that holds.
        SourceEmptyError: the faces that its engines are compared on are not in this workspace.
        FpenetError: see `schemas.errors`. What goes wrong with a target or a device is in the page instead.
    """
    run = Run(load_config(config))
    told: list[str] = []

    def work(requests: Sequence[Request]) -> None:
        named = [request.version for request in requests if request.version is not None]
        finish_rolling_back(run)
        chosen = choose_rollout(run, named[-1] if named else None)
        page = str(roll_out(run, chosen)) if chosen else ""
        late = bring_up(run, quote(chosen))
        nothing = "" if late else "nothing to do: every device runs what its stage holds"
        told.append("; ".join(filter(None, (page or nothing, late))))

    with present(run.workspace.lease):
        request = this_request("rollout", version=version)
        left_to = take_turn(Lease(run.workspace.rollouts / "lease"), request, work)
    return tell_rollout(run, f"left to {left_to}" if left_to else told[-1])
