"""The routes for monitoring: liveness, readiness and metrics."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from worker.api.dependencies import ServicesDep
from worker.api.models import Health
from worker.api.refusals import Refusal, responses_for
from worker.api.runners.protocol import TaskStatus

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

router: Final = APIRouter(tags=["probes"])

_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_NO_ROUTE: Final = "none"


class Metrics:
    """The metrics of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter(
            "worker_api_requests", "Answered requests", labels, registry=self.registry
        )
        self.duration_s = Histogram(
            "worker_api_request_duration_seconds",
            "From a request's head to the end of its response",
            ("method", "route"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.tasks = Gauge(
            "worker_api_tasks", "Tasks by status", ("status",), registry=self.registry
        )

    def refused(self, status: HTTPStatus) -> None:
        """Count a request that was refused before it was served."""
        self.requests.labels(_NO_ROUTE, _NO_ROUTE, str(int(status))).inc()

    @classmethod
    def of(cls, app: FastAPI) -> Metrics:
        """The app's metrics, created at the first call."""
        if not hasattr(app.state, "metrics"):
            app.state.metrics = cls()
        metrics: Metrics = app.state.metrics
        return metrics


class MetricsMiddleware:
    """ASGI middleware that counts and times requests."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; record its duration and status."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)

        async def send_and_record(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        try:
            await self._app(scope, receive, send_and_record)
        finally:
            route = getattr(scope.get("route"), "path", _NO_ROUTE)
            method = scope["method"] if route != _NO_ROUTE else _NO_ROUTE
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.duration_s.labels(method, route).observe(time.perf_counter() - began)


@router.get("/healthz", summary="Liveness")
async def healthz() -> Health:
    """200 while the process answers."""
    return Health()


@router.get(
    "/readyz",
    summary="Readiness",
    responses=responses_for(HTTPStatus.SERVICE_UNAVAILABLE),
)
async def readyz(services: ServicesDep) -> Health:
    """200 while tasks can be started and every loop of the API runs."""
    if down := services.loops.down:
        whys = "; ".join(f"the loop {name} is down: {why}" for name, why in sorted(down.items()))
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"{whys}; it is restarted")
    if not await services.runner.ready():
        raise Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The runner cannot start tasks; see the events of `worker serve`",
        )
    return Health()


@router.get(
    "/metrics",
    summary="Metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, services: ServicesDep) -> Response:
    """Metrics in the Prometheus text format."""
    collected = Metrics.of(request.app)
    counts = await services.runner.counts()
    for status in TaskStatus:
        collected.tasks.labels(str(status)).set(counts.get(status, 0))
    return Response(generate_latest(collected.registry), media_type=CONTENT_TYPE_LATEST)
