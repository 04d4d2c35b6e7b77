"""The Prefect tasks of the flow `rollout`, in the manner of `tasks.steps`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prefect import runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound
from prefect.futures import as_completed
from prefect.utilities.annotations import quote
from rich.markup import escape

from deploy.devices import Device, load_devices
from deploy.pointers import utc_now
from deploy.targets import Target, find_target
from schemas.errors import ReviewError
from tasks.fleet.catch_up import catch_up, told
from tasks.fleet.check import absent
from tasks.fleet.material import fetch_material, materials
from tasks.fleet.page import print_rollout, write_rollout
from tasks.fleet.pending import begin, only_waited_for, open_rollout
from tasks.fleet.plan import Plan
from tasks.fleet.promotion import finish_rollbacks
from tasks.fleet.results import BAD, RolloutResult, TargetRow, in_order, load_result
from tasks.fleet.rollout import roll_out_target
from tasks.fleet.status import left_out
from tasks.fleet.work_pool import open_device
from tasks.gateway.outgoing import MODEL_RESOURCE
from tasks.review.approval import Accepted, Standing, accepted_version
from tasks.review.inbox import look
from tasks.run import Run
from tasks.steps import step_task

ARTIFACT = "fpenet-rollout"
DEPLOYMENT = "rollout/rollout"
"""Of the flow `rollout`, as `prefect.yaml` names it."""
PROMOTED, GATED = "fpenet.engine.promoted", "fpenet.engine.gated"


def fleet_of(run: Run) -> list[Device]:
    return list(load_devices(run.config.devices).values())


@step_task(name="roll back")
def finish_rolling_back(run: Run) -> None:
    """Devices that have missed a rollback are asked again: they were offline, or it was cut off."""
    with run.step("roll back") as step:
        records, problems = finish_rollbacks(run.workspace.targets, fleet_of(run), open_shell=open_device)
        asked = [f"{record.device} {record.outcome}" for record in records]
        step.detail = ", ".join([*asked, *problems]) or "no device has missed a rollback"


@step_task(name="choose")
def choose_rollout(run: Run, version: str | None) -> RolloutResult | None:
    """The rollout to work on; None where there is nothing to do."""
    targets, rollouts = list(run.config.targets), run.workspace.rollouts
    if version is not None:
        return begin(approved_version(run, version), targets, rollouts)
    return open_rollout(accepted_version(run.workspace), targets, rollouts)


def approved_version(run: Run, version: str) -> Accepted:
    """The approval by which `version` is the champion.

    Raises:
        ReviewError: there is none that holds.
        TrackingError: the server can't be reached, or refuses a request.
    """
    inbox = look(run.config.tracking, run.workspace, run.config.review)
    found = next((found for found in inbox.versions if found.version == version), None)
    if found is None:
        name = run.config.tracking.registered_model
        known = ", ".join(found.version for found in inbox.versions) or "none"
        raise ReviewError(f"{name} has no version {version}; there are: {known}")
    if found.decision.standing is Standing.CHAMPION and inbox.champion is not None:
        return inbox.champion
    hint = "; `fpenet run review` accepts it, and rolls it out" * (found.decision.standing is Standing.APPROVED)
    raise ReviewError(f"{found}{hint}. Only the version that was accepted last is rolled out")


def roll_out(run: Run, begun: RolloutResult) -> Path:
    """Work on every open target, all at once; what each comes to is written down as soon as it is known. Where all
    that is left waits for devices, and none of them answers, nothing is fetched or compared.

    Returns:
        The rollout's page.
    """
    devices = fleet_of(run)
    if missed := left_out(run.config, devices):
        run.console.print(f"[yellow]warning[/] {escape(missed)}", soft_wrap=True)
    result = replace(begun, seen_at=utc_now())
    if _nobody_answers(run, begun, devices):
        return write_rollout(result, run.workspace.rollouts)
    with run.step("fetch") as step:
        material = fetch_material(begun.model_name, begun.model_version, run.config.tracking, run.workspace)
        faces = len(material.expected.keypoints_BN2)  # read and run here once, and not by every target's thread
        step.detail = f"{begun.version}, {faces} KPI faces of snapshot {material.provenance.snapshot_id[:12]}"
    plan = Plan(
        material=material,
        devices=devices,
        workspace=run.workspace,
        open_shell=open_device,
        by=f"flow {runtime.flow_run.flow_name}",
        why=f"approved by {begun.approved_by}, rollout {begun.id}",
        began_at=begun.began_at,
    )
    waiting = [
        roll_out_one.submit(run, quote(plan), quote(find_target(name)), quote(begun.row(name)))
        for name in begun.open_targets
    ]
    unforeseen = []
    for future in as_completed(waiting):
        row = future.result(raise_on_failure=False)
        if not isinstance(row, TargetRow):
            unforeseen.append(future)  # an error of ours: the others are written down first
            continue
        others = (other for other in result.rows if other.target != row.target)
        result = replace(result, rows=in_order([*others, row], result.targets))
        write_rollout(result, run.workspace.rollouts)
    for future in unforeseen:
        future.result()
    print_rollout(result, run.console)
    return write_rollout(result, run.workspace.rollouts)


def _nobody_answers(run: Run, begun: RolloutResult, devices: Sequence[Device]) -> bool:
    """Whether all that is left of the rollout waits for devices that are still away."""
    waited_for = only_waited_for(begun, devices)
    if not waited_for:
        return False
    with run.step("ask") as step:
        away = absent(waited_for, open_device)
        step.detail = f"still away: {', '.join(away)}" if away else "all answer that were away"
    return len(away) == len(waited_for)


@step_task(name="target", task_run_name="target {target.name}")
def roll_out_one(run: Run, plan: Plan, target: Target, earlier: TargetRow | None) -> TargetRow:
    with run.step(target.name) as step:
        row = roll_out_target(plan, target, earlier)
        step.detail = f"{row.state}: {row.why}" if row.why else row.state
    if earlier is None or earlier.state != row.state:
        _tell_event(row, plan)
    return row


@step_task(name="catch up")
def bring_up(run: Run, done: RolloutResult | None) -> str:
    """Bring up devices that do not run what their stage says, such as those that are new in the fleet.

    Args:
        done: the rollout of this run; the devices that it has asked are not asked twice.

    Returns:
        What became of each, for people; '' where no device was behind.
    """

    material_of = materials(run.config.tracking, run.workspace)
    result = load_result(done.id, run.workspace.rollouts) if done else None
    rows = [device for target in result.rows for device in target.devices] if result else []
    asked = {row.device for row in rows if row.state in (*BAD, "offline")}
    with run.step("catch up") as step:
        late = catch_up(
            run.workspace.targets, fleet_of(run), open_shell=open_device, material_of=material_of, asked=asked
        )
        step.detail = told(late) or "every device that was not asked runs what its stage holds"
    return told(late)


def _tell_event(row: TargetRow, plan: Plan) -> None:
    event = {"promoted": PROMOTED, "gated": GATED}.get(row.state)
    if event is None:
        return
    origin = plan.material.provenance
    payload = {"target": row.target, "engine": row.engine, "version": origin.model_version, "why": row.why}
    resource = {"prefect.resource.id": f"fpenet.target.{row.target}", "prefect.resource.name": row.target}
    related = {"prefect.resource.id": f"{MODEL_RESOURCE}{origin.model_name}", "prefect.resource.role": "model"}
    emit_event(event, resource, related=[related], payload=payload)


def is_deployed(deployment: str) -> bool:
    """Whether there is this deployment, where the flow run that asks is one of a deployment too."""
    if runtime.deployment.id is None:
        return False
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            return False
    return True


def start_deployed(config: str, deployment: str) -> str | None:
    """Have Prefect run `deployment` of the flow `rollout`, where the flow run that asks is one of a deployment too.

    Returns:
        Which run it is, for people; None where there is no such deployment, or the asking run was started by hand.
    """
    if runtime.deployment.id is None:
        return None
    try:
        started = run_deployment(deployment, parameters={"config": config}, timeout=0, as_subflow=False)
    except ObjectNotFound:
        return None
    return f"run {started.name} of {deployment}"


def tell_rollout(run: Run, told: str) -> str:
    """Say what came of it, here and in Prefect."""
    run.console.print(escape(told), soft_wrap=True)
    create_markdown_artifact(told, key=ARTIFACT, description=told)
    return told
