"""The steps of a look at the annotations: which sources to pull, what changed, what to do, and telling it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import runtime
from prefect.artifacts import create_markdown_artifact
from prefect.deployments import run_deployment
from rich.markup import escape

from schemas.sources import LabelStudioSource, Source
from schemas.storage import read_json
from schemas.urls import without_credentials
from tasks.champion import CurrentModel, challenger_model, current_model, newest_model
from tasks.changes import Changes, FaceChange, Kind, changes_since
from tasks.lease import Kind as RequestKind
from tasks.lease import Request
from tasks.pull import PULL_FILE, PullResult
from tasks.quiet import look_at_all, quiet_for_s, server_time
from tasks.review.aliases import CHAMPION
from tasks.run import Run
from tasks.snapshot import load_snapshot
from tasks.steps import pull_source, server_task, step_task
from tasks.sync_decision import Comparison, Decision, Outcome, decide
from tasks.validate import Validation
from tasks.workspace import Workspace

ARTIFACT = "fpenet-sync"
SHOWN_FACES = 20


@dataclass(frozen=True)
class Look:
    """What a look at the annotations found. `again` tells who looks again, where somebody must."""

    decision: Decision
    pulls: Sequence[PullResult] = ()
    comparisons: Sequence[Comparison] = ()
    again: str = ""


def this_request(
    kind: RequestKind, project_id: int | None = None, *, version: str | None = None, config: str | None = None
) -> Request:
    """What the flow run that goes on asks for."""
    by = f"{runtime.flow_run.flow_name} {runtime.flow_run.name}"
    deployment = runtime.deployment.id if kind == "look" else None
    return Request(kind, by, project_id, deployment, version, config and str(Path(config).absolute()))


def projects_of(requests: Sequence[Request]) -> frozenset[int] | None:
    """The Label Studio projects that are asked about; None means every source."""
    asked = {request.project_id for request in requests}
    return None if None in asked else frozenset(project for project in asked if project is not None)


def concerned(run: Run, requests: Sequence[Request]) -> bool:
    """Whether any source is, or may be, one of the projects that are asked about."""
    projects = projects_of(requests)
    return projects is None or any(_may_be(source, projects, run.workspace) for source in run.config.sources)


def unconcerned(requests: Sequence[Request]) -> Look:
    """A look that found nothing to look at: an event of a project that this configuration does not use."""
    names = ", ".join(map(str, sorted(projects_of(requests) or ())))
    return Look(Decision(Outcome.UNCHANGED, f"no source of this configuration is Label Studio project {names}"))


def pull_for(run: Run, requests: Sequence[Request]) -> list[PullResult]:
    """Pull what is asked about, and all that lies on this machine; of other projects take what the last pull left."""
    projects = projects_of(requests)
    return [
        pull_source(run, source)
        if projects is None or (kept := _last_pull(source, run.workspace)) is None or _is_one_of(kept, projects)
        else kept
        for source in run.config.sources
    ]


@step_task(name="compare")
def compare_with_models(run: Run, validation: Validation) -> list[Comparison]:
    """With the faces of the champion, the challenger and the newest candidate, as far as their snapshots are in this
    workspace. A candidate without a report is left out: what its run did not come to is still to be done."""
    workspace = run.workspace
    with run.step("compare") as step:
        found = [find(run.config.tracking, workspace) for find in (current_model, challenger_model, newest_model)]
        models = {model.snapshot_id: model for model in reversed(found) if model and _is_known(model, workspace)}
        snapshots = [load_snapshot(workspace.snapshots / str(snapshot_id)) for snapshot_id in models]
        comparisons = [
            Comparison(str(model), changes_since(snapshot, validation.faces))
            for model, snapshot in zip(models.values(), snapshots, strict=True)
        ]
        step.detail = "; ".join(f"{len(c.changes):,} since {c.model}" for c in comparisons) or "no model's faces here"
    return comparisons


@server_task(name="decide")
def decide_now(run: Run, pulls: Sequence[PullResult], comparisons: Sequence[Comparison]) -> Decision:
    """What to do, by what changed and by how long the sources have been quiet."""
    now = datetime.now(UTC)
    sightings = look_at_all(pulls, run.workspace.seen, now=now)
    servers = {source.name: source for source in run.config.sources if isinstance(source, LabelStudioSource)}

    def quiet_s() -> dict[str, float]:
        told = {name: server_time(servers[name]) for name in sightings if name in servers}
        return {name: quiet_for_s(seen, now=now, server_now=told.get(name)) for name, seen in sightings.items()}

    return decide(comparisons, run.config.sync, quiet_s)


def look_again(config: str, requests: Sequence[Request], wait_s: float) -> str:
    """Have Prefect run the deployment that asked once more, when it will have been quiet; nothing waits meanwhile.

    A run for the same second is not made twice. Where nobody asked through a deployment, nobody can be sent.

    Returns:
        Who looks again and when, for people.
    """
    at = (datetime.now(UTC) + timedelta(seconds=wait_s + 1)).replace(microsecond=0) + timedelta(seconds=1)
    time = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    deployment = next((request.deployment for request in requests if request.deployment), None)
    if deployment is None:
        return f"run it again after {time}"
    projects = projects_of(requests) or ()
    parameters: dict[str, Any] = {
        "config": config,
        "project_id": next(iter(projects)) if len(projects) == 1 else None,
    }
    scheduled = run_deployment(
        UUID(deployment),
        parameters=parameters,
        scheduled_time=at,
        timeout=0,
        as_subflow=False,
        idempotency_key=f"{deployment} looks again at {at.isoformat()}",
    )
    return f"run {scheduled.name} looks again at {time}"


def tell_look(run: Run, look: Look) -> Decision:
    """Print the decision, and leave it on Prefect's page of artifacts. No names of images or people are in it."""
    decision = look.decision
    again = f"; {look.again}" if look.again else ""
    run.console.print(f"[bold]{decision.outcome}[/]: {escape(decision.reason + again)}", soft_wrap=True)
    create_markdown_artifact(describe(look), key=ARTIFACT, description=f"{decision.outcome}: {decision.reason}")
    return decision


def tell_left(run: Run, holder: str) -> str:
    """Say that another run has the lease and will do what this one came for."""
    told = f"left to {holder}"
    run.console.print(escape(told), soft_wrap=True)
    create_markdown_artifact(f"**{told}**", key=ARTIFACT, description=told)
    return told


def describe(look: Look) -> str:
    """The look as Markdown: what was decided and why, what changed by source, and the faces that changed most."""
    decision = look.decision
    parts = [f"**{decision.outcome}**: {decision.reason}"]
    if look.again:
        parts.append(look.again)
    for comparison in look.comparisons:
        parts += [f"Since {comparison.model}:", _by_source(look.pulls, comparison.changes)]
        if len(comparison.changes):
            parts.append(_most_changed(look.pulls, comparison.changes))
    return "\n\n".join(parts) + "\n"


def _may_be(source: Source, projects: frozenset[int], workspace: Workspace) -> bool:
    if not isinstance(source, LabelStudioSource):
        return False
    if isinstance(source.project, int):
        return source.project in projects
    kept = _last_pull(source, workspace)
    return kept is None or _is_one_of(kept, projects)


def _is_one_of(pull: PullResult, projects: frozenset[int]) -> bool:
    return pull.details["project"]["id"] in projects


def _last_pull(source: Source, workspace: Workspace) -> PullResult | None:
    """What the last pull of a server's project left here; None if there was none, or from elsewhere."""
    folder = workspace.raw(source.name)
    if not isinstance(source, LabelStudioSource) or not (folder / PULL_FILE).is_file():
        return None
    written = read_json(folder / PULL_FILE)
    fields = {field.name: written[field.name] for field in dataclasses.fields(PullResult)}
    kept = PullResult(**fields | {"raw": folder / written["raw"]})
    details = kept.details
    same_place = kept.kind == source.kind and details["server"]["url"] == without_credentials(source.url)
    return kept if same_place and source.project in details["project"].values() and kept.raw.is_file() else None


def _is_known(model: CurrentModel, workspace: Workspace) -> bool:
    if model.snapshot_id is None or not (model.alias == CHAMPION or model.reported):
        return False
    return (workspace.snapshots / model.snapshot_id / "manifest.json").is_file()


def _by_source(pulls: Sequence[PullResult], changes: Changes) -> str:
    counts = changes.by_source()
    names = sorted({pull.source for pull in pulls} | counts.keys())
    rows = [[name, *(counts[name][kind] if name in counts else 0 for kind in Kind)] for name in names]
    return _table(["source", *Kind], rows)


def _most_changed(pulls: Sequence[PullResult], changes: Changes) -> str:
    """Faces of a server by their key, which is of numbers; of a file by their source alone, for the key is a path."""
    servers = {pull.source for pull in pulls if pull.kind == "label_studio"}

    def weight(face: FaceChange) -> tuple[float, int, str]:
        return -face.furthest_px, -face.flags, face.source_key

    rows = [
        [
            face.source_key if face.source in servers else face.source,
            str(face.kind),
            *([face.moved, f"{face.furthest_px:.1f}", face.flags] if face.kind is Kind.CHANGED else [""] * 3),
        ]
        for face in sorted(changes.faces, key=weight)[:SHOWN_FACES]
    ]
    return _table(["face", "", "keypoints moved", "furthest (px)", "flags changed"], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
