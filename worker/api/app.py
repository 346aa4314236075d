"""The FastAPI app: routes, middleware, exception handlers and OpenAPI description."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from worker.api import refusals
from worker.api.authentication import AuthenticationMiddleware
from worker.api.refusals import Refusal, responses_for
from worker.api.routes import artifacts, dashboard, docs, probes, streams, tasks
from worker.api.runners.machine_faults import describe, is_machine_fault
from worker.api.runners.protocol import (
    AccountFull,
    AccountRefused,
    NotRemovable,
    QueueFull,
    RunnerUnavailable,
)

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi.responses import JSONResponse

    from worker.api.dependencies import Services

_UNAVAILABLE_RETRY_S: Final = 5
_CORS_MAX_AGE_S: Final = 600
_DESCRIPTION: Final = """\
Starts browser tasks and shows them live. Every request to `/api/` needs an API key, created with
`worker api-key ACCOUNT`, in the header `x-api-key`. The body of every error is `{"detail": "…"}`.
"""


def make(services: Services) -> FastAPI:
    """Create the app; the caller opens and closes the services."""
    app = FastAPI(
        title="worker",
        version="1",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.services = services
    always = responses_for(HTTPStatus.UNAUTHORIZED, HTTPStatus.SERVICE_UNAVAILABLE)
    for routes in (tasks, streams, artifacts):
        app.include_router(routes.router, responses=always)
    app.include_router(probes.router)
    docs.add(app)
    dashboard.add(app, services.novnc_dir)
    _add_middleware(app, services)
    _add_refusals(app)
    _add_refusals_of_runners(app)
    return app


def _add_middleware(app: FastAPI, services: Services) -> None:
    """The middleware that is added last is the outermost."""
    app.add_middleware(AuthenticationMiddleware, accounts=services.accounts)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=services.allowed_origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["x-api-key", "content-type", "idempotency-key"],
        expose_headers=["retry-after"],
        max_age=_CORS_MAX_AGE_S,
    )
    app.add_middleware(probes.MetricsMiddleware, metrics=probes.Metrics.of(app))


def _add_refusals(app: FastAPI) -> None:
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = _allowed_methods(request)
            headers = {"Allow": allowed} if allowed else error.headers
            error = Refusal(error.status_code, error.detail, headers)
        if error.status_code == HTTPStatus.BAD_REQUEST:
            # FastAPI's own, for a body that its JSON parser fails on (for example by its nesting).
            error = Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "body: invalid JSON")
        return refusals.response(error)

    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        detail = refusals.validation_detail(error.errors())
        return refusals.response(Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, detail))

    async def unavailable(_request: Request, error: RunnerUnavailable) -> JSONResponse:
        return refusals.response(refusals.unavailable(str(error), _UNAVAILABLE_RETRY_S))

    async def by_machine(_request: Request, error: Exception) -> JSONResponse:
        if not is_machine_fault(error):
            raise error
        return refusals.response(refusals.unavailable(describe(error), _UNAVAILABLE_RETRY_S))

    async def failed(_request: Request, _error: Exception) -> JSONResponse:
        return refusals.response(Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal server error"))

    app.add_exception_handler(HTTPException, refused)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, invalid)  # type: ignore[arg-type]
    app.add_exception_handler(RunnerUnavailable, unavailable)  # type: ignore[arg-type]
    app.add_exception_handler(OSError, by_machine)
    app.add_exception_handler(MemoryError, by_machine)
    app.add_exception_handler(Exception, failed)


def _allowed_methods(request: Request) -> str:
    """Of all routes of tasks with this path; Starlette names those of the first one only."""
    found = [
        route.methods or ()
        for route in tasks.router.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    ]
    return ", ".join(sorted(set().union(*found)))


def _add_refusals_of_runners(app: FastAPI) -> None:
    async def queue_full(_request: Request, error: QueueFull) -> JSONResponse:
        return refusals.response(refusals.queue_full(error.retry_after_s, error.account_max))

    async def account_full(_request: Request, error: AccountFull) -> JSONResponse:
        return refusals.response(refusals.account_full(str(error), error.retry_after_s))

    async def account_refused(_request: Request, error: AccountRefused) -> JSONResponse:
        return refusals.response(Refusal(HTTPStatus.FORBIDDEN, str(error)))

    async def not_removable(_request: Request, error: NotRemovable) -> JSONResponse:
        return refusals.response(Refusal(HTTPStatus.CONFLICT, str(error)))

    app.add_exception_handler(NotRemovable, not_removable)  # type: ignore[arg-type]
    app.add_exception_handler(QueueFull, queue_full)  # type: ignore[arg-type]
    app.add_exception_handler(AccountFull, account_full)  # type: ignore[arg-type]
    app.add_exception_handler(AccountRefused, account_refused)  # type: ignore[arg-type]
