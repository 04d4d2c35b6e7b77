"""A project for a labelling team: config, instructions, images, webhook. What is there is found, not doubled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import httpx

from schemas.errors import SpecError
from schemas.label_studio_config import config_labels, labelling_config
from schemas.label_studio_drift import config_drift
from tasks.label_studio.client import Connection, refusal
from tasks.label_studio.image_storage import ImageStorage, ensure_storage
from tasks.label_studio.instructions import labelling_instructions
from tasks.label_studio.outcome import Outcome, State
from tasks.label_studio.webhook import ensure_webhook


@dataclass(frozen=True)
class ProjectSetup:
    """What a set-up left.

    Attributes:
        project, title, url: the project, and where a browser finds it.
        outcomes: its parts, in the order in which they were looked at.
    """

    project: int
    title: str
    url: str
    outcomes: tuple[Outcome, ...]

    @property
    def drift(self) -> list[str]:
        """What was found otherwise and left so."""
        return [text for part in self.outcomes if part.state is State.DRIFTED for text in part.drift]


def set_up(
    connection: Connection,
    *,
    title: str,
    num_keypoints: int,
    storage: ImageStorage | None = None,
    webhook_url: str | None = None,
    secret: str = "",
    repair: bool = False,
) -> ProjectSetup:
    """Make the project `title`, or complete the one that is there.

    What people changed in a project stays as they left it, and is reported, unless `repair` asks otherwise.

    Args:
        storage: where its images are.
        webhook_url: where the gateway takes events; `secret` goes with each of them.
        repair: put a config and instructions that drifted back as `labelling_config` and `labelling_instructions`
            give them.

    Raises:
        ProjectNotFoundError: several projects have this title.
        SpecError: the config can't be repaired under the annotations that are there; a storage that can't be used.
        SourceUnreachableError, SourceRefusedError: the server.
    """
    title = title.strip()  # as the server does
    found = any(project.title == title for project in connection.projects())
    project = _whole(connection, title) if found else _make(connection, title, num_keypoints)
    state = State.FOUND if found else State.MADE
    outcomes = [Outcome("project", state, f"{project.id} '{title}'")]
    if found:
        outcomes.append(_config(connection, project, num_keypoints, repair))
        outcomes.append(_instructions(connection, project, num_keypoints, repair))
    else:
        outcomes.append(Outcome("labelling config", State.MADE, f"{num_keypoints} keypoints"))
        outcomes.append(Outcome("instructions", State.MADE, "shown before labelling"))
    if storage is not None:
        outcomes.append(ensure_storage(connection, project.id, storage))
    if webhook_url is not None:
        outcomes.append(ensure_webhook(connection, project.id, webhook_url, secret))
    return ProjectSetup(project.id, title, f"{connection.place}/projects/{project.id}", tuple(outcomes))


def _whole(connection: Connection, title: str) -> Any:
    """A project with its instructions, which the list of projects leaves out."""
    identity = connection.project(title).id
    with connection.errors():
        return connection.sdk.projects.get(id=identity)


def _make(connection: Connection, title: str, num_keypoints: int) -> Any:
    with connection.errors():
        return connection.sdk.projects.create(
            title=title,
            label_config=labelling_config(num_keypoints),
            expert_instruction=labelling_instructions(num_keypoints),
            show_instruction=True,
            request_options={"max_retries": 0},
        )


def _config(connection: Connection, project: Any, num_keypoints: int, repair: bool) -> Outcome:
    part, wanted = "labelling config", labelling_config(num_keypoints)
    if not len(ElementTree.fromstring(project.label_config)):  # a project that was made by hand just now
        _change(connection, project, label_config=wanted)
        return Outcome(part, State.MADE, f"{num_keypoints} keypoints")
    drift = tuple(config_drift(project.label_config, num_keypoints))
    if not drift:
        return Outcome(part, State.FOUND, f"{num_keypoints} keypoints")
    if not repair:
        return Outcome(part, State.DRIFTED, "people changed it", drift)
    _change(connection, project, label_config=wanted)
    went = config_labels(project.label_config) - config_labels(wanted)
    kept = f"; points of {len(went)} labels that went stay in their annotations" if went else ""
    return Outcome(part, State.CHANGED, f"{num_keypoints} keypoints{kept}", drift)


def _instructions(connection: Connection, project: Any, num_keypoints: int, repair: bool) -> Outcome:
    part, wanted, actual = "instructions", labelling_instructions(num_keypoints), project.expert_instruction or ""
    if not actual.strip():
        _change(connection, project, expert_instruction=wanted, show_instruction=True)
        return Outcome(part, State.MADE, "shown before labelling")
    drift = []
    if actual.strip() != wanted:
        drift.append(f"the instructions are not those for {num_keypoints} keypoints")
    if not project.show_instruction:
        drift.append("the instructions are not shown before labelling")
    if drift and repair:
        _change(connection, project, expert_instruction=wanted, show_instruction=True)
    state = State.FOUND if not drift else State.CHANGED if repair else State.DRIFTED
    detail = "people changed them" if state is State.DRIFTED else "shown before labelling"
    return Outcome(part, state, detail, tuple(drift))


def _change(connection: Connection, project: Any, **settings: Any) -> None:
    with connection.errors():
        reply = connection.files.patch(f"/api/projects/{project.id}/", json=settings)
        if reply.status_code == httpx.codes.BAD_REQUEST and "label_config" in settings:
            raise SpecError(
                f"project {project.id} '{project.title}'",
                "its labelling config can't be repaired, because annotations use controls that would go; Label "
                f"Studio says: {refusal(reply)}. Give the controls their names back, or start a new project",
            )
        reply.raise_for_status()
