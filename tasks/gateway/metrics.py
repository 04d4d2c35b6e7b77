"""What Prometheus may know of the gateway: counts and times, no ids and no names."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tasks.gateway.hints import Hint
from tasks.gateway.outgoing import Entry

_ANSWER_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
"""Label Studio waits 1 s."""


class GatewayMetrics:
    """The metrics of one gateway."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.deliveries = Counter(
            "fpenet_gateway_deliveries",
            "Deliveries by source, action and what became of them",
            ("source", "action", "outcome"),
            registry=self._registry,
        )
        self.answer_s = Histogram(
            "fpenet_gateway_answer_seconds",
            "From a whole request head to the answer",
            ("source",),
            buckets=_ANSWER_S,
            registry=self._registry,
        )
        self.commit_s = Histogram(
            "fpenet_gateway_commit_seconds", "One commit of the journal", buckets=_ANSWER_S, registry=self._registry
        )
        self.previous_secret = Counter(
            "fpenet_gateway_previous_secret",
            "Deliveries that showed the previous secret: while it rises, somebody has not changed yet",
            ("source",),
            registry=self._registry,
        )
        self.forward_failures = Counter(
            "fpenet_gateway_forward_failures", "Attempts that Prefect did not take", registry=self._registry
        )
        self._ended = Counter(
            "fpenet_gateway_ended",
            "Journal entries that Prefect has, or refuses for good",
            ("source", "outcome"),
            registry=self._registry,
        )
        self._events = Counter(
            "fpenet_gateway_events", "Prefect events made of them", ("source", "outcome"), registry=self._registry
        )
        self._backlog = Gauge(
            "fpenet_gateway_backlog", "Journal entries that wait for Prefect", registry=self._registry
        )
        self._backlog_age_s = Gauge(
            "fpenet_gateway_backlog_age_seconds", "Age of the oldest of them", registry=self._registry
        )

    def delivered(self, source: str, hint: Hint | None, outcome: str) -> None:
        """Count a delivery. Actions that are not known are `other`, so that no sender can make labels without end."""
        action = "none" if hint is None else hint.action if hint.known else "other"
        self.deliveries.labels(source, action, outcome).inc()

    def ended(self, groups: Sequence[Sequence[Entry]], outcome: str) -> None:
        """Count the groups of entries that have ended."""
        for group in groups:
            labels = group[0].hint.source, outcome
            self._events.labels(*labels).inc()
            self._ended.labels(*labels).inc(len(group))

    def page(self, *, backlog: int, age_s: float) -> bytes:
        """The metrics in Prometheus's text format."""
        self._backlog.set(backlog)
        self._backlog_age_s.set(age_s)
        return generate_latest(self._registry)
