"""Dependencies of the routes: the services, the calling account, and the account's task."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from fastapi import Depends, Request

from worker.api import refusals
from worker.api.accounts import Account, Accounts
from worker.api.endpoints import Endpoints
from worker.api.runners.background import Loops
from worker.api.runners.protocol import Runner, TaskRecord

_TASK_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The objects and settings that the routes use."""

    runner: Runner
    accounts: Accounts
    endpoints: Endpoints
    stream_key: Callable[[str], bytes]
    loops: Loops = field(default_factory=lambda: Loops(lambda *_, **__: None))
    stream_base_url: str | None = None
    default_timeout_s: float = 3600.0
    private_callbacks: bool = False
    allowed_origins: tuple[str, ...] = ()
    novnc_dir: Path = Path("/usr/share/novnc")


def services_of(request: Request) -> Services:
    """The app's services."""
    services: Services = request.app.state.services
    return services


def caller_of(request: Request) -> Account:
    """The account that the authentication middleware put into the scope."""
    account: Account = request.scope["worker.account"]
    return account


async def _services(request: Request) -> Services:
    return services_of(request)


async def _caller(request: Request) -> Account:
    return caller_of(request)


async def _own_task(task_id: str, request: Request) -> TaskRecord:
    # Without dependencies of its own: each costs 0.04 ms per request for a stream URL.
    return await _found(task_id, request, summary=True)


async def _whole_task(task_id: str, request: Request) -> TaskRecord:
    return await _found(task_id, request, summary=False)


async def _found(task_id: str, request: Request, *, summary: bool) -> TaskRecord:
    found = None
    if _TASK_ID.fullmatch(task_id):
        runner = services_of(request).runner
        found = await runner.find(caller_of(request).name, task_id.lower(), summary=summary)
    if found is None:
        raise refusals.task_not_found(task_id)
    return found


ServicesDep = Annotated[Services, Depends(_services)]
Caller = Annotated[Account, Depends(_caller)]
OwnTask = Annotated[TaskRecord, Depends(_own_task)]
"""Without inputs, output and error."""
WholeTask = Annotated[TaskRecord, Depends(_whole_task)]
