"""Who may send how often. What has not shown the secret can't use up what is meant for those who have."""

from __future__ import annotations

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from schemas.errors import DeliveryError, InputError
from tasks.gateway.settings import GatewaySettings


class Rates:
    """Counts deliveries in this process.

    Raises:
        InputError: a rate that is none.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._client, self._total, self._unknown = (
            _parsed(rate) for rate in (settings.client_rate, settings.total_rate, settings.unknown_rate)
        )

    async def count_known(self, source: str, client: str) -> None:
        """A delivery that has shown the secret. Raises `DeliveryError` (`too-many`)."""
        await self._count(self._client, "known", source, client)
        await self._count(self._total, "all")

    async def count_unknown(self, source: str, client: str) -> None:
        """One that has not, or not yet. Raises `DeliveryError` (`too-many`)."""
        await self._count(self._unknown, "unknown", source, client)

    async def _count(self, rate: RateLimitItem, *key: str) -> None:
        if not await self._limiter.hit(rate, *key):
            raise DeliveryError("too-many", f"more than {rate} from {'all' if key == ('all',) else 'this address'}")


def _parsed(rate: str) -> RateLimitItem:
    try:
        return parse(rate)
    except ValueError as error:
        raise InputError(f"'{rate}' is no rate; write it like 100/10second or 20/minute") from error
