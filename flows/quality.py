"""The flow `quality`: what is wrong with the labels, before a model learns it."""

from __future__ import annotations

from prefect import flow

from flows.turn import work_on_project


@flow(name="quality", persist_result=False)
def quality(config: str) -> str:
    """Pull, validate, compare annotators, send tasks back, look for label errors and duplicates, show it all.

    If another run has the project's lease, the request is left to it: it looks at the labels before it ends.

    Args:
        config: path of a configuration (`schemas.config.WorkflowConfig`).

    Returns:
        Path of the run's page; or who the request was left to.

    Raises:
        FpenetError: see `schemas.errors`.
    """
    return work_on_project(config, "quality")
