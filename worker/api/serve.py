"""`worker serve`: runs the API until a signal stops it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import sys
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import uvicorn
import uvloop
from fastapi import FastAPI

from worker import linux, net
from worker.api import app, master_secret, precedence
from worker.api.accounts import Accounts, keys_file
from worker.api.callbacks.sender import Sender
from worker.api.dependencies import Services
from worker.api.endpoints import Endpoints, endpoints_folder
from worker.api.port.connection import Connection
from worker.api.port.port import Port
from worker.api.port.transport import tune
from worker.api.routes import probes
from worker.api.runners.background import Loops
from worker.events import Events
from worker.settings import unknown_variables
from worker.stream import tokens
from worker.trusted_proxies import TrustedProxies

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Iterator

    from worker.api.runners.protocol import Runner, StreamKey
    from worker.settings.serve import ServeSettings

_BACKLOG: Final = 1024
_ACCEPTS_PER_ITERATION: Final = 4
_STOP_LIMIT_S: Final = 5
_SWITCH_INTERVAL_S: Final = 0.0002
"""How long a thread that counts or lists many files may delay each step of a request: the default,
5 ms, makes that 70 ms for a request of some steps."""
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def run(settings: ServeSettings, stopped_early: Callable[[], bool] = lambda: False) -> None:
    """Run `serve` on uvloop.

    Args:
        settings: those of the selected runner, from `worker.settings.load_serve`.
        stopped_early: whether a signal came before the event loop had its handlers.

    Raises:
        UsageError: a setting is invalid, or the port or the state folder is in use.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    linux.return_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, stopped_early))


async def serve(settings: ServeSettings, stopped_early: Callable[[], bool]) -> None:
    """Serve until SIGTERM or SIGINT, also during the start; running tasks continue."""
    stop = asyncio.Event()
    for number in _STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if stopped_early():
        return
    secret = master_secret.read(settings)
    events = Events(None)
    loops = Loops(events.emit)
    runner = _runner(settings, lambda task_id: tokens.derive_key(secret, task_id), loops)
    services = _services(settings, secret, runner, loops)
    services.accounts.check()
    listener = net.listen(settings.api_host, settings.api_port, backlog=_BACKLOG)
    sender = Sender(
        runner=runner,
        secret_of=lambda account: master_secret.callback_secret(secret, account),
        report=events.emit,
        private=settings.callback_private,
        loops=loops,
    )
    tokens.prepare()
    if not await _before(stop, runner.open()):
        return
    cgroup = contextlib.ExitStack()
    try:
        if getattr(runner, "tasks_have_cgroups", False):
            cgroup.enter_context(precedence.own_cgroup())
        for name in unknown_variables(type(settings), os.environ):
            events.emit("setting.unknown", name=name)
        for name, fields in getattr(runner, "notices", ()):
            events.emit(name, **fields)
        host, port = listener.getsockname()[:2]
        events.emit("api.started", host=host, port=port, runner=settings.runner)
        proxies = TrustedProxies(settings.trusted_proxies)
        await _until_stopped(stop, services, listener, sender, proxies, events)
    finally:
        await runner.close()
        cgroup.close()
        events.emit("api.stopped")


async def _before(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Wait for the work; False, and it is cancelled, if the stop was requested before its end."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return True
        working.cancel()
        await asyncio.wait([working])
        return False
    finally:
        stopping.cancel()


class _Server(uvicorn.Server):
    """A server without signal handlers of its own: theirs would miss earlier signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _until_stopped(
    stop: asyncio.Event,
    services: Services,
    listener: socket.socket,
    sender: Sender,
    proxies: TrustedProxies,
    events: Events,
) -> None:
    application = app.make(services)
    port = _port(application, services.accounts, proxies, events)
    tune(listener)
    config = uvicorn.Config(
        application,
        http=partial(Connection, port),  # type: ignore[arg-type]  # called as the class would be
        ws="none",
        proxy_headers=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STOP_LIMIT_S,
    )
    # libuv (from 1.45 on) accepts one connection per listening descriptor and loop iteration, so
    # under load new connections would wait for many iterations.
    listeners = [listener, *(listener.dup() for _ in range(_ACCEPTS_PER_ITERATION - 1))]
    sending = asyncio.ensure_future(sender.run())
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(listeners))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
        sending.cancel()
        await asyncio.wait([sending])


def _port(
    application: FastAPI, accounts: Accounts, proxies: TrustedProxies, events: Events
) -> Port:
    def report(address: str, status: HTTPStatus, count: int) -> None:
        events.emit("request.refused", address=address, status=int(status), count=count)

    metrics = probes.Metrics.of(application)
    return Port(accounts, proxies, count_refused=metrics.refused, report_refused=report)


def _services(settings: ServeSettings, secret: bytes, runner: Runner, loops: Loops) -> Services:
    return Services(
        runner=runner,
        loops=loops,
        accounts=Accounts(keys_file(settings)),
        endpoints=Endpoints(endpoints_folder(settings)),
        stream_key=lambda task_id: tokens.derive_key(secret, task_id),
        stream_base_url=settings.stream_base_url,
        default_timeout_s=settings.timeout_s,
        private_callbacks=settings.callback_private,
        allowed_origins=settings.allowed_origins,
        novnc_dir=settings.novnc_dir,
    )


def _runner(settings: ServeSettings, stream_key: StreamKey, loops: Loops) -> Runner:
    """The selected runner; the libraries of the others are not imported."""
    module = importlib.import_module(f"worker.api.runners.{settings.runner}.runner")
    made: Runner = module.make(settings, stream_key, loops)
    return made
