"""An event loop in a thread of its own, for callers that wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from functools import cache
from typing import Any, TypeVar

Result = TypeVar("Result")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="device connections", daemon=True).start()
    return loop


_starting = threading.Lock()


def wait_for(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end on the one loop that all connections share; any thread may call this, but for the
    loop's own. An interrupted caller cancels its coroutine."""
    with _starting:
        loop = _loop()
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except (KeyboardInterrupt, CancelledError):
        future.cancel()
        raise
