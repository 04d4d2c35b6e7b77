"""The webhook gateway's HTTP: two routes for deliveries, `/healthz`, `/metrics`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from schemas.errors import DeliveryError, StorageError
from tasks.gateway.forwarder import Forwarder
from tasks.gateway.hints import LABEL_STUDIO, MLFLOW, Hint, label_studio_hint, registry_hint
from tasks.gateway.journal import Arrival, Journal
from tasks.gateway.journal_thread import JournalThread
from tasks.gateway.metrics import GatewayMetrics
from tasks.gateway.prefect_events import PrefectEvents
from tasks.gateway.rates import Rates
from tasks.gateway.settings import SECRET_HEADER, GatewaySettings, SharedSecret
from tasks.gateway.signatures import Stamp, check_secret

logger = logging.getLogger("fpenet.gateway")

STATUS_OF = {
    "no-secret": 401,
    "wrong-secret": 401,
    "stale": 401,
    "not-served": 404,
    "too-slow": 408,
    "gone": 400,
    "malformed": 400,
    "repeated": 409,
    "too-large": 413,
    "not-understood": 422,
    "too-many": 429,
}
"""Why a delivery is refused -> HTTP status."""

RETRY_AFTER_S = "10"
_PROBE_AFTER_S = 10


class Gateway:
    """What the routes do. Made inside the event loop.

    Args:
        mlflow: None refuses MLflow's deliveries.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        journal: Journal,
        settings: GatewaySettings,
        *,
        label_studio: SharedSecret,
        mlflow: SharedSecret | None,
        receiver: PrefectEvents,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._label_studio, self._mlflow, self._clock = settings, label_studio, mlflow, clock
        self._metrics = GatewayMetrics()
        self._rates = Rates(settings)
        self.journal = JournalThread(journal, on_kept=self._metrics.commit_s.observe)
        self._forwarder = Forwarder(self.journal, receiver, settings, self._metrics, clock=clock)
        self._forwarding = asyncio.create_task(self._forwarder.run())
        self._forwarding.add_done_callback(_tell_end)

    async def close(self) -> None:
        """Stop forwarding, finish what is being kept, and close the journal."""
        self._forwarding.cancel()
        await asyncio.wait([self._forwarding])
        await self.journal.close()

    async def label_studio(self, request: Request) -> Response:
        return await self._answer(LABEL_STUDIO, request, self._take_label_studio)

    async def mlflow(self, request: Request) -> Response:
        return await self._answer(MLFLOW, request, self._take_mlflow)

    async def health(self) -> Response:
        """200 while deliveries are kept and passed on, or wait for a Prefect that can't be reached; 503 otherwise."""
        problem = await self._journal_problem()
        if problem is None and self._forwarding.done():
            problem = "the forwarder has ended; restart the gateway"
        prefect = self._forwarder.problem
        state = "failing" if problem else "degraded" if prefect else "ok"
        told = {"status": state, "journal": problem or "ok", "prefect": prefect or "ok"}
        return JSONResponse(told | {"backlog": self.journal.journal.pending}, 503 if problem else 200)

    async def metrics(self) -> Response:
        oldest = await self.journal.call(self.journal.journal.oldest_pending)
        age_s = 0.0 if oldest is None else max(0.0, self._clock() - oldest)
        page = self._metrics.page(backlog=self.journal.journal.pending, age_s=age_s)
        return Response(page, media_type="text/plain; version=0.0.4")

    async def _answer(
        self, source: str, request: Request, take: Callable[[Request, str], Awaitable[tuple[Hint | None, int | None]]]
    ) -> Response:
        client = request.client.host if request.client else "unknown"
        hint = None
        with self._metrics.answer_s.labels(source).time():
            try:
                hint, number = await take(request, client)
            except DeliveryError as error:
                self._metrics.delivered(source, hint, error.reason)
                if error.reason != "too-many":  # those before it are in the log already
                    logger.warning("%s: refused from %s: %s: %s", source, client, error.reason, error)
                headers = {"Retry-After": RETRY_AFTER_S} if error.reason == "too-many" else None
                return JSONResponse({"error": str(error)}, STATUS_OF[error.reason], headers)
            except StorageError as error:
                self._metrics.delivered(source, hint, "not-kept")
                logger.error("%s: not kept: %s", source, error)
                return JSONResponse({"error": "the journal can't be written"}, 503)
        self._metrics.delivered(source, hint, "ignored" if number is None else "kept")
        return JSONResponse({"entry": number}, 202)

    async def _take_label_studio(self, request: Request, client: str) -> tuple[Hint | None, int | None]:
        """The secret is looked at before any of the body is read."""
        try:
            previous = check_secret(self._label_studio, request.headers.get(SECRET_HEADER))
        except DeliveryError:
            await self._rates.count_unknown(LABEL_STUDIO, client)
            raise
        await self._count_known(LABEL_STUDIO, client, previous)
        body = await _body(request, self._settings.label_studio_bytes, self._settings.timeout_s)
        hint = label_studio_hint(body, project=request.query_params.get("project"))
        return hint, await self.journal.append(Arrival(hint, self._clock()))

    async def _take_mlflow(self, request: Request, client: str) -> tuple[Hint | None, int | None]:
        """The signature is over the body, so that has to be read before anything is proved."""
        if self._mlflow is None:
            raise DeliveryError("not-served", "this gateway has no secret for MLflow, so it can't believe it")
        await self._rates.count_unknown(MLFLOW, client)
        stamp = Stamp.of(request.headers, now=self._clock(), tolerance_s=self._settings.tolerance_s)
        body = await _body(request, self._settings.mlflow_bytes, self._settings.timeout_s)
        await self._count_known(MLFLOW, client, stamp.check(self._mlflow, body))
        hint = registry_hint(body)
        if hint is None:
            return None, None
        return hint, await self.journal.append(Arrival(hint, self._clock(), stamp.delivery))

    async def _count_known(self, source: str, client: str, previous: bool) -> None:
        if previous:
            self._metrics.previous_secret.labels(source).inc()
        await self._rates.count_known(source, client)

    async def _journal_problem(self) -> str | None:
        """Probed only if nothing was written lately, so that asking often costs no fsync."""
        last, now = self.journal.last_write_s, asyncio.get_running_loop().time()
        if last is None or now - last > _PROBE_AFTER_S:
            try:
                await self.journal.probe(self._clock())
            except StorageError as error:
                return str(error)
        return None


def _tell_end(forwarding: asyncio.Task[None]) -> None:
    if not forwarding.cancelled():
        logger.critical("the forwarder has ended", exc_info=forwarding.exception())


async def _body(request: Request, largest: int, timeout_s: float) -> bytes:
    """The body, unless it turns out larger; the server reads no further ahead than 64 KiB."""
    too_large = DeliveryError("too-large", f"the body has more than {largest} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > largest:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in request.stream():
                body += piece
                if len(body) > largest:
                    raise too_large
    except TimeoutError:
        raise DeliveryError("too-slow", f"the body was not all here after {timeout_s:g} s") from None
    except ClientDisconnect:
        raise DeliveryError("gone", "the sender went before its body was all here") from None
    return bytes(body)


def build_app(journal: Journal, settings: GatewaySettings, **parts: Any) -> FastAPI:
    """The application; it closes the journal when it ends. `parts`: the secrets, see `Gateway`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with PrefectEvents() as receiver:
            gateway = app.state.gateway = Gateway(journal, settings, receiver=receiver, **parts)
            yield
            await gateway.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)

    @app.post("/webhooks/label-studio")
    async def label_studio(request: Request) -> Response:
        return await request.app.state.gateway.label_studio(request)

    @app.post("/webhooks/mlflow")
    async def mlflow(request: Request) -> Response:
        return await request.app.state.gateway.mlflow(request)

    @app.get("/healthz")
    async def health(request: Request) -> Response:
        return await request.app.state.gateway.health()

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        return await request.app.state.gateway.metrics()

    return app
