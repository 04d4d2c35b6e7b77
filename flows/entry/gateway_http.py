"""uvicorn for the gateway: limits that it lacks, and a log without access lines."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from schemas.errors import InputError
from tasks.gateway.settings import GatewaySettings

_LARGEST_HEAD = 32 * 1024
_GRACE_S = 5

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {
        name: {"handlers": ["stderr"], "level": level, "propagate": False}
        for name, level in (("fpenet.gateway", "INFO"), ("uvicorn", "WARNING"))
    },
}


def guarded_protocol(timeout_s: float, most_of_one: int) -> type[H11Protocol]:
    """uvicorn's protocol, which waits forever for a request's head and for the rest of a body already answered.

    Here a connection is closed when `timeout_s` have passed since it opened, or since its last answer, without a
    request that is being answered; and at once if its address has `most_of_one` others open, so that one that only
    opens connections leaves some to the rest.
    """
    opened: Counter[str] = Counter()

    class GuardedProtocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None
        _address = ""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._address = self.client[0] if self.client else ""
            opened[self._address] += 1
            if opened[self._address] > most_of_one:
                transport.close()
            else:
                self._arm()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            opened[self._address] -= 1
            if not opened[self._address]:
                del opened[self._address]
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            if self.cycle is not None and not self.cycle.response_complete:
                self._disarm()

        def on_response_complete(self) -> None:
            self._arm()
            super().on_response_complete()

        def _arm(self) -> None:
            self._disarm()
            self._deadline = self.loop.call_later(timeout_s, self.transport.close)

        def _disarm(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return GuardedProtocol


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        InputError: the port is taken, or the address is not this machine's.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InputError(f"{host}:{port}: can't listen there: {error.strerror}; choose another --port") from error


def server(app: FastAPI, settings: GatewaySettings, *, trusted_proxies: Sequence[str] = ()) -> uvicorn.Server:
    """A server for one process. The client's address is taken from `X-Forwarded-For` of `trusted_proxies` only."""
    most_of_one = settings.connections if trusted_proxies else settings.connections // 2
    config: dict[str, Any] = {
        "http": guarded_protocol(settings.timeout_s, most_of_one),
        "ws": "none",
        "lifespan": "on",
        "log_config": LOGGING,
        "access_log": False,
        "server_header": False,
        "proxy_headers": bool(trusted_proxies),
        "forwarded_allow_ips": list(trusted_proxies),
        "limit_concurrency": settings.connections,
        "h11_max_incomplete_event_size": _LARGEST_HEAD,
        "timeout_graceful_shutdown": _GRACE_S,
    }
    return uvicorn.Server(uvicorn.Config(app, **config))
