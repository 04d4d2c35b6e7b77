"""Who sent a delivery: the secret itself from Label Studio, a signature from MLflow. Compared in constant time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.errors import DeliveryError
from tasks.gateway.settings import SharedSecret

SIGNATURE_HEADER = "X-MLflow-Signature"
TIMESTAMP_HEADER = "X-MLflow-Timestamp"
DELIVERY_HEADER = "X-MLflow-Delivery-Id"
VERSION = "v1"

_DELIVERY_ID = re.compile(r"[0-9A-Za-z_-]{1,100}")  # no dot, which separates the parts that are signed
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def check_secret(secret: SharedSecret, given: str | None) -> bool:
    """See that `given` is the secret; True if it is the previous one.

    Raises:
        DeliveryError: `no-secret`, `wrong-secret`.
    """
    if not given:
        raise DeliveryError("no-secret", "the header with the secret is missing")
    return _which(given.encode(errors="surrogateescape"), secret.current, secret.previous)


@dataclass(frozen=True)
class Stamp:
    """The headers of a delivery of MLflow, well formed and fresh; nothing is proved yet."""

    delivery: str
    timestamp: str
    signature: str

    @classmethod
    def of(cls, headers: Mapping[str, str], *, now: float, tolerance_s: float) -> Stamp:
        """Read the headers; `now` in seconds since 1970.

        Raises:
            DeliveryError: `no-secret` for headers that are missing or misshapen, `stale` for a time that is further
                from `now` than `tolerance_s`.
        """
        delivery, timestamp, signature = (
            headers.get(name, "") for name in (DELIVERY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)
        )
        if not (signature and _DELIVERY_ID.fullmatch(delivery) and _TIMESTAMP.fullmatch(timestamp)):
            raise DeliveryError("no-secret", "the headers with signature, delivery id and time are not all there")
        late_s = now - int(timestamp)
        if abs(late_s) > tolerance_s:
            raise DeliveryError(
                "stale",
                f"signed {abs(late_s):.0f} s {'ago' if late_s > 0 else 'from now'}, more than {tolerance_s:g} s; "
                "if the delivery is new, set the clocks",
            )
        return cls(delivery, timestamp, signature)

    def check(self, secret: SharedSecret, body: bytes) -> bool:
        """See that the sender of `body` has the secret; True if it is the previous one.

        Raises:
            DeliveryError: `wrong-secret`.
        """
        signed = f"{self.delivery}.{self.timestamp}.".encode() + body
        expected = [sign(key, signed) if key else None for key in (secret.current, secret.previous)]
        return _which(self.signature.encode(errors="surrogateescape"), *expected)


def sign(key: bytes, signed: bytes) -> bytes:
    """MLflow's signature, in the form of Standard Webhooks: `v1,<base64 of HMAC-SHA256>`."""
    return VERSION.encode() + b"," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256))


def _which(given: bytes, current: bytes, previous: bytes | None) -> bool:
    """Both are compared whatever the first says, so that the time tells nothing."""
    is_current = hmac.compare_digest(given, current)
    is_previous = hmac.compare_digest(given, previous or current)
    if not (is_current or is_previous):
        raise DeliveryError("wrong-secret", "the secret or the signature is wrong")
    return not is_current
