"""The flow `sync`: follow the annotations, and retrain when enough of them have changed."""

from __future__ import annotations

from prefect import flow

from flows.turn import work_on_project


@flow(name="sync", persist_result=False)
def sync(config: str, project_id: int | None = None) -> str:
    """Pull, compare with the faces of the models in the registry, and retrain when enough really changed.

    Whatever woke it is a hint: the content decides (`tasks.sync_decision`). If another run has the project's lease,
    the request is left to it: it looks before it ends.

    Args:
        config: path of a configuration (`schemas.config.WorkflowConfig`); its part `sync` says what is enough.
        project_id: Label Studio project that something happened in; other servers' annotations are taken as the last
            pull left them. None pulls all sources.

    Returns:
        What came of it, for people.

    Raises:
        GateError: a candidate was made, whose ONNX file or engine is further from Keras than its bound.
        FpenetError: see `schemas.errors`.
    """
    return work_on_project(config, "look", project_id=project_id)
