"""The Prefect tasks of the flow `suggest`, in the manner of `tasks.steps`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from model.labelling_order import Ranking
from model.labelling_signals import FaceSignals
from model.pose import yaw_degrees
from schemas.errors import SpecError
from schemas.sources import LabelStudioSource
from schemas.storage import write_json
from tasks.label_studio.client import connected, token_from_environment
from tasks.label_studio.predictions import (
    Prediction,
    Written,
    label_in_order,
    list_tasks,
    show_in_order,
    write_predictions,
)
from tasks.label_studio.views import task_url
from tasks.labelling.faces import LeftOut, OpenFace, open_faces, usable_tasks
from tasks.labelling.suggest import (
    CurrentNetwork,
    Known,
    labelled_snapshot,
    look_at_labelled,
    open_network,
    predictions,
    rank,
    scores_of,
    signals_of,
)
from tasks.run import Run
from tasks.splits import kpi_subjects
from tasks.steps import server_task, step_task
from tasks.tombstones import Tombstones

SUGGESTIONS = "suggestions.json"


@dataclass(frozen=True, eq=False)
class OpenProject:
    """A project, and the faces of its tasks that nobody has touched."""

    source: LabelStudioSource
    project: int
    faces: Sequence[OpenFace]
    left_out: Sequence[LeftOut]


@dataclass(frozen=True, eq=False)
class Ranked:
    """The faces of all projects, one project after the other, and which to label next. Nothing without a face."""

    signals: FaceSignals | None
    ranking: Ranking


@dataclass(frozen=True)
class ProjectResult:
    """What was written into a project; `view` is where a browser finds the tab."""

    source: str
    project: int
    untouched: int
    suggested: int
    written: Written
    view: str | None


@step_task(name="model")
def open_current(run: Run) -> CurrentNetwork:
    with run.step("model") as step:
        network = open_network(run.config, run.workspace)
        step.detail = str(network.model)
    return network


@step_task(name="labelled")
def see_labelled(run: Run, network: CurrentNetwork) -> Known:
    with run.step("labelled") as step:
        snapshot = labelled_snapshot(run.workspace, network.model.snapshot_id, network.num_keypoints)
        known = look_at_labelled(network, snapshot)
        bounds = int(np.isfinite(known.thresholds_N).sum())
        step.detail = (
            f"{len(known.signals) if known.signals else 0:,} faces; occlusion is proposed for {bounds} of "
            f"{network.num_keypoints} keypoints, from {known.flagged:,} faces with flags"
            + ("" if known.proposes_occlusion else "; so occluded faces are not told apart")
        )
    return known


@server_task(name="look")
def see_open(run: Run, network: CurrentNetwork, source: LabelStudioSource) -> OpenProject:
    with (
        run.step(f"look {source.name}") as step,
        run.counting("look") as progress,
        connected(source.url, token_from_environment(source.token_env)) as connection,
    ):
        project = connection.project(source.project).id
        tasks = list_tasks(
            connection, project, name=network.model.name, page_size=source.page_size, progress=progress
        )
        held_out, tombstones = kpi_subjects(run.config.split), Tombstones.of(run.workspace.root)
        usable, left_out = usable_tasks(tasks, source, held_out=held_out, tombstones=tombstones)
        seen = open_faces(
            usable,
            source,
            connection,
            network.input,
            predict=network.predict,
            search=run.config.labelling.search_face,
            folder=run.workspace.labelling / ".images" / f"{run.id}-{source.name}",
            progress=progress,
        )
        faces: list[OpenFace] = []
        for face in seen:
            (left_out if isinstance(face, LeftOut) else faces).append(face)
        searched = sum(face.origin == "searched" for face in faces)
        step.detail = f"{len(tasks):,} tasks, {len(faces):,} untouched faces" + (
            f", {searched:,} without a face box: searched" if searched else ""
        )
    return OpenProject(source, project, faces, left_out)


@step_task(name="rank")
def rank_faces(run: Run, network: CurrentNetwork, known: Known, projects: Sequence[OpenProject]) -> Ranked:
    faces = [face for project in projects for face in project.faces]
    with run.step("rank") as step:
        signals = signals_of(network, faces)
        if signals is None:
            step.detail = "nobody waits for a label"
            return Ranked(None, Ranking(np.empty(0, int), np.empty(0), np.empty(0)))
        ranking = rank(signals, known, count=run.config.labelling.suggest)
        apart = (signals.disagreement_F[ranking.faces].mean(), signals.disagreement_F.mean())
        step.detail = (
            f"{len(ranking.faces):,} of {len(faces):,}; views of them disagree by {apart[0]:.2f} px, of all by "
            f"{apart[1]:.2f}"
        )
    return Ranked(signals, ranking)


@server_task(name="write")
def write_back(
    run: Run, network: CurrentNetwork, known: Known, projects: Sequence[OpenProject], ranked: Ranked, number: int
) -> ProjectResult:
    """Write into the project `number`."""
    open_project = projects[number]
    source, settings = open_project.source, run.config.labelling
    with (
        run.step(f"write {source.name}") as step,
        run.counting("write") as progress,
        connected(source.url, token_from_environment(source.token_env)) as connection,
    ):
        scores = _scores(projects, ranked, number)
        chosen = np.flatnonzero((scores < 1) | (settings.predict == "untouched"))
        # Listed anew: people label while the model looks, and a retry must see what was written before it.
        tasks = list_tasks(
            connection,
            open_project.project,
            name=network.model.name,
            page_size=source.page_size,
            progress=progress,
        )
        written = write_predictions(
            connection,
            open_project.project,
            _wanted(network, known, projects, ranked, number, chosen, scores),
            tasks,
            progress=progress,
        )
        if settings.order_stream and written.created + written.kept:
            label_in_order(connection, open_project.project, network.model_version)
        view = show_in_order(connection, open_project.project).url if settings.keep_view else None
        suggested = int((scores < 1).sum())
        step.detail = (
            f"{suggested:,} tasks to label next; predictions: {written.created:,} written, {written.kept:,} as they "
            f"were, {written.removed:,} taken away"
        )
    return ProjectResult(source.name, open_project.project, len(open_project.faces), suggested, written, view)


def _scores(projects: Sequence[OpenProject], ranked: Ranked, number: int) -> np.ndarray:
    """Scores of the faces of the project `number`."""
    counts = [len(project.faces) for project in projects]
    start = sum(counts[:number])
    return np.array(scores_of(sum(counts), ranked.ranking.faces.tolist()))[start : start + counts[number]]


def _wanted(
    network: CurrentNetwork,
    known: Known,
    projects: Sequence[OpenProject],
    ranked: Ranked,
    number: int,
    chosen: np.ndarray,
    scores: np.ndarray,
) -> Callable[[int], Prediction | None]:
    """Makes the predictions of the `chosen` faces of the project `number`, by task."""
    if ranked.signals is None or not len(chosen):
        return lambda task: None
    start = sum(len(project.faces) for project in projects[:number])
    faces = [projects[number].faces[i] for i in chosen.tolist()]
    signals = ranked.signals.of_faces(start + chosen)
    return predictions(faces, signals, scores[chosen].tolist(), known, network.model_version)


@step_task(name="tell")
def tell(
    run: Run,
    network: CurrentNetwork,
    projects: Sequence[OpenProject],
    ranked: Ranked,
    results: Sequence[ProjectResult],
) -> Path:
    """Write what was suggested, and why."""
    path = run.workspace.labelling / run.id / SUGGESTIONS
    with run.step("tell") as step:
        left_out = [
            {"source": project.source.name, "record": _record(project, item.task), **asdict(item)}
            for project in projects
            for item in project.left_out
        ]
        content = {
            "run": run.id,
            "model": network.model_version,
            "settings": run.config.labelling.model_dump(),
            "projects": [asdict(result) for result in results],
            "suggested": _suggested(projects, ranked),
            "left_out": left_out,
        }
        write_json(path, content)
        reasons = Counter(item["reason"] for item in left_out)
        step.detail = f"{path}" + "".join(f"; {number:,} left out: {why}" for why, number in sorted(reasons.items()))
    return path


def label_studio_sources(run: Run) -> list[LabelStudioSource]:
    """The configuration's projects.

    Raises:
        SpecError: there is none.
    """
    found = [source for source in run.config.sources if isinstance(source, LabelStudioSource)]
    if not found:
        raise SpecError("sources", "none is of the kind label_studio: there is nowhere to suggest tasks")
    return found


def _record(project: OpenProject, task: int) -> str:
    """The task as `RawRecord.source_key` has it: who forgets a subject finds it by this."""
    return f"{project.source.name}:task/{task}"


def _suggested(projects: Sequence[OpenProject], ranked: Ranked) -> list[dict[str, object]]:
    """Best first: which task, and why it."""
    if ranked.signals is None:
        return []
    faces = [(project, face) for project in projects for face in project.faces]
    yaw_F = yaw_degrees(ranked.signals.points_FN2)
    return [
        {
            "place": place,
            "source": faces[i][0].source.name,
            "record": _record(faces[i][0], faces[i][1].task),
            "task": faces[i][1].task,
            "url": task_url(faces[i][0].source.url, faces[i][0].project, faces[i][1].task),
            "gain": round(float(gain), 4),
            "disagreement_px": round(float(ranked.signals.disagreement_F[i]), 3),
            "mean_confidence": round(float(ranked.signals.confidence_FN[i].mean()), 4),
            "yaw_degrees": None if yaw_F is None else round(float(yaw_F[i]), 1),
            "rarity": round(float(ranked.ranking.rarity_F[i]), 3),
            "face_box": faces[i][1].origin,
        }
        for place, (i, gain) in enumerate(
            zip(ranked.ranking.faces.tolist(), ranked.ranking.gain.tolist(), strict=True), start=1
        )
    ]
