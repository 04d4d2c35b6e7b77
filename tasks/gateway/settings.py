"""What the gateway is told: limits, and the secrets that it shares with the senders."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from schemas.errors import InputError

LABEL_STUDIO_SECRET_ENV = "FPENET_LABEL_STUDIO_WEBHOOK_SECRET"
MLFLOW_SECRET_ENV = "FPENET_MLFLOW_WEBHOOK_SECRET"
PREVIOUS_SUFFIX = "_PREVIOUS"
"""Added to the name of either variable: the secret that is still taken while senders change to the new one."""

SECRET_HEADER = "X-FPENet-Secret"
"""Header in which Label Studio, which signs nothing, sends the secret itself."""

DELIVERY_MEMORY_S = 24 * 3600
"""A delivery id is remembered for so long; what is older is refused for its time."""

_LARGEST_TOLERANCE_S = DELIVERY_MEMORY_S // 4  # between the clocks a delivery is fresh for twice as long
_SHORTEST = 16
_MIB = 1 << 20


@dataclass(frozen=True)
class GatewaySettings:
    """Limits of the gateway. Rates are in the notation of the library `limits`.

    Attributes:
        label_studio_bytes: largest body from Label Studio. One annotation of 80 keypoints takes about 42 KB, tasks
            created in bulk 0.7 KB each.
        mlflow_bytes: largest body from MLflow. It is read before its sender is known.
        timeout_s: longest time between a connection's opening, or its last answer, and a whole request head; and for
            the body after it.
        connections: open at once; further ones are answered 503. One address gets half of them.
        tolerance_s: how far the time in a signed delivery may be from the clock here, either way.
        client_rate, total_rate: deliveries from one address, and from all, that have shown the secret.
        unknown_rate: deliveries from one address that have not: refused ones, and unsigned ones on trial.
        most_pending: entries that wait for Prefect before hints of one project are made one.
        retention_days: how long forwarded entries are kept, to be looked at.
        forward_every_s: shortest time between two messages to Prefect, in which a burst becomes one event.
        longest_backoff_s: longest pause between attempts while Prefect is away.
    """

    label_studio_bytes: int = 10 * _MIB
    mlflow_bytes: int = _MIB
    timeout_s: float = 10
    connections: int = 512
    tolerance_s: int = 300
    client_rate: str = "5000/10second"
    total_rate: str = "10000/10second"
    unknown_rate: str = "600/minute"
    most_pending: int = 100_000
    retention_days: float = 14
    forward_every_s: float = 1
    longest_backoff_s: float = 30

    def __post_init__(self) -> None:
        if not 0 < self.tolerance_s <= _LARGEST_TOLERANCE_S:
            raise InputError(
                f"a tolerance of {self.tolerance_s} s: it must be above 0 and at most {_LARGEST_TOLERANCE_S}, "
                "for delivery ids are not remembered for ever"
            )


@dataclass(frozen=True)
class SharedSecret:
    """A secret that senders have too. Its `repr` shows nothing of it."""

    current: bytes = field(repr=False)
    previous: bytes | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, variable: str) -> SharedSecret | None:
        """The secret in `variable`, and the one before it in `variable` + `_PREVIOUS`; None if it is not set.

        Raises:
            InputError: one of them is too short, or no text that a header can carry.
        """
        current, previous = (os.environ.get(name, "") for name in (variable, variable + PREVIOUS_SUFFIX))
        if not current:
            return None
        for name, secret in ((variable, current), (variable + PREVIOUS_SUFFIX, previous)):
            if secret:
                _check(name, secret)
        return cls(current.encode(), previous.encode() or None)


def required_secret(variable: str) -> SharedSecret:
    """As `SharedSecret.from_environment`, but raises `InputError` if the variable is not set."""
    secret = SharedSecret.from_environment(variable)
    if secret is None:
        raise InputError(
            f"the environment variable {variable} is not set: without it anybody could start flows; set it here and "
            "give the same text to the sender, such as `openssl rand -hex 32` prints"
        )
    return secret


def _check(variable: str, secret: str) -> None:
    if len(secret) < _SHORTEST:
        raise InputError(f"{variable}: shorter than {_SHORTEST} characters; take what `openssl rand -hex 32` prints")
    if not (secret.isascii() and secret.isprintable()) or secret != secret.strip():
        raise InputError(
            f"{variable}: only printable ASCII without spaces around it survives an HTTP header; "
            "take what `openssl rand -hex 32` prints"
        )
