"""MLflow, as a configuration names it: a server, or a SQLite file in the workspace."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from schemas.config import Tracking
from schemas.errors import TrackingError
from schemas.storage import make_folder
from schemas.urls import without_credentials
from tasks.addresses import is_address
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.entities import PagedList

HEALTH_TIMEOUT_S = 10.0


@contextmanager
def mlflow_client(tracking: Tracking, workspace: Workspace) -> Iterator[MlflowClient]:
    """A client whose server answers; MLflow's own functions talk to the same one.

    Raises:
        TrackingError: the server can't be reached; or MLflow refused something inside, or did not transfer a file.
        StorageError: there is no server, and the workspace for its database can't be made.
    """
    uri = tracking.uri or workspace.tracking_uri
    _refuse_unreachable(uri)
    mlflow = _import_mlflow()
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    if uri == workspace.tracking_uri:
        make_folder(workspace.root)
    mlflow.set_tracking_uri(uri)
    try:
        yield mlflow.MlflowClient(uri, uri)
    except MlflowException as error:
        said = without_credentials(f"MLflow at {uri} refused: {error.message}")
        raise TrackingError(said) from None  # a traceback would show what MLflow itself said
    except RequestException as error:  # MLflow hands on what an upload or a listing of artifacts meets
        said = without_credentials(f"MLflow at {uri}: an artifact was not transferred: {error}")
        raise TrackingError(
            f"{said}; see what the server, or a proxy before it, has against it, and run the same command again"
        ) from None


def all_pages(search: Callable[..., PagedList[Any]]) -> Iterator[Any]:
    """What a search of MLflow's client finds, page after page."""
    page = search()
    yield from page
    while page.token:
        page = search(page_token=page.token)
        yield from page


def _import_mlflow() -> Any:
    """MLflow, sending no usage statistics, not reporting on its SQLite tables, and not printing where a run is: that
    address has the server's password."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import mlflow

    for name in ("mlflow.store.db", "alembic.runtime.migration"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def _refuse_unreachable(uri: str) -> None:
    """Ask a server for its health once; MLflow's own client would retry for minutes first.

    Who may ask is for MLflow's client to say, by settings of its own; nothing secret is sent here.
    """
    if uri.startswith(("http://", "https://")) and (problem := _problem_at(uri)):
        raise TrackingError(
            f"MLflow at {without_credentials(uri)} {problem}. "
            "What was trained is kept: the same command goes on from here"
        )


def _problem_at(uri: str) -> str | None:
    """Why there is no use in asking the server, and what to do; None where one answers."""
    import requests  # as MLflow does: whom it trusts, this trusts

    if not is_address(uri):
        return "is no address; correct tracking.uri"
    try:
        answer = requests.get(
            f"{without_credentials(uri).rstrip('/')}/health",
            auth=lambda request: request,  # nobody's: not of a .netrc either
            allow_redirects=False,
            verify=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or not _is_set("MLFLOW_TRACKING_INSECURE_TLS"),
            cert=os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
            timeout=HEALTH_TIMEOUT_S,
        )
    except requests.exceptions.SSLError as error:
        return f"can't be reached by TLS: {error}; name the file of its CA in MLFLOW_TRACKING_SERVER_CERT_PATH"
    except OSError as error:  # of requests; or a file of certificates is missing
        return f"can't be reached: {str(error) or type(error).__name__}; start it or correct tracking.uri"
    if answer.status_code >= requests.codes.server_error:
        return f"answers HTTP {answer.status_code}; start it or correct tracking.uri"
    return None


def _is_set(variable: str) -> bool:
    """As MLflow reads it."""
    return os.environ.get(variable, "").lower() in ("true", "1")
