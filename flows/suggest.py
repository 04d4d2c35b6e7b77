"""The flow `suggest`: what the current model proposes to labellers, and which tasks they should label next."""

from __future__ import annotations

from prefect import flow
from prefect.utilities.annotations import quote

from schemas.config import load_config
from tasks.lease import present
from tasks.run import Run
from tasks.suggest_steps import (
    label_studio_sources,
    open_current,
    rank_faces,
    see_labelled,
    see_open,
    tell,
    write_back,
)


@flow(name="suggest", persist_result=False)
def suggest(config: str) -> str:
    """Look at the tasks that nobody has touched, rank them by expected gain, write predictions and the order.

    No label is read or changed. Run again, it brings the suggestions up to date and writes only what differs.

    Args:
        config: path of a configuration (`schemas.config.WorkflowConfig`).

    Returns:
        Path of a JSON file: the tasks to label next with the reasons, and the tasks left out.

    Raises:
        FpenetError: see `schemas.errors`.
    """
    run = Run(load_config(config))
    with present(run.workspace.lease):
        sources = label_studio_sources(run)
        network = quote(open_current(run))
        known = quote(see_labelled(run, network))
        projects = quote([see_open(run, network, source) for source in sources])
        ranked = quote(rank_faces(run, network, known, projects))
        results = [write_back(run, network, known, projects, ranked, number) for number in range(len(sources))]
        return str(tell(run, network, projects, ranked, results))
