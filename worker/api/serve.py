"""`worker serve`: the API, from its settings to its end."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvicorn
import uvloop

from worker import examples
from worker.api import app, master_secret
from worker.api.accounts import Accounts, keys_file
from worker.api.callbacks.sender import Sender
from worker.api.dependencies import Services
from worker.api.endpoints import Endpoints
from worker.errors import PortInUse
from worker.events import Events
from worker.stream import tokens

if TYPE_CHECKING:
    from worker.api.runners.protocol import Runner, StreamKey
    from worker.settings import Settings

_BACKLOG: Final = 1024
_ACCEPTS_A_TURN: Final = 16
_STOP_LIMIT_S: Final = 5


def run(settings: Settings) -> None:
    """Serve until a signal asks for the end; `serve` on the fastest loop there is."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


async def serve(settings: Settings) -> None:
    """Serve until a signal asks for the end; the tasks run on.

    Raises:
        UsageError: something is set wrongly, or the port or the state folder is in use.
    """
    secret = master_secret.read(settings)
    runner = _runner(settings, lambda task_id: tokens.derive_key(secret, task_id))
    services = _services(settings, secret, runner)
    services.accounts.check()
    listener = _listen(settings.api_host, settings.api_port)
    events = Events(None)
    sender = Sender(
        runner=runner,
        secret_of=lambda account: master_secret.callback_secret(secret, account),
        report=events.emit,
        private=settings.callback_private,
    )
    tokens.prepare()
    await runner.open()
    try:
        host, port = listener.getsockname()[:2]
        events.emit("api.started", host=host, port=port, runner=settings.runner)
        await _until_stopped(services, listener, sender)
    finally:
        await runner.close()
        events.emit("api.stopped")


async def _until_stopped(services: Services, listener: socket.socket, sender: Sender) -> None:
    config = uvicorn.Config(
        app.make(services),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STOP_LIMIT_S,
    )
    # libuv (from 1.45 on) accepts one connection per listening descriptor and turn of the loop; so
    # while many clients keep each turn busy, new ones would wait for as many turns as they are.
    listeners = [listener, *(listener.dup() for _ in range(_ACCEPTS_A_TURN - 1))]
    sending = asyncio.ensure_future(sender.run())
    try:
        await uvicorn.Server(config).serve(listeners)
    finally:
        sending.cancel()
        await asyncio.wait([sending])


def _services(settings: Settings, secret: bytes, runner: Runner) -> Services:
    folder = settings.endpoints_dir or Path(examples.__file__).parent
    return Services(
        runner=runner,
        accounts=Accounts(keys_file(settings)),
        endpoints=Endpoints(folder.expanduser()),
        stream_key=lambda task_id: tokens.derive_key(secret, task_id),
        stream_base_url=settings.stream_base_url,
        default_timeout_s=settings.timeout_s,
        private_callbacks=settings.callback_private,
        allowed_origins=settings.allowed_origins,
        novnc_dir=settings.novnc_dir,
    )


def _runner(settings: Settings, stream_key: StreamKey) -> Runner:
    """The chosen one; the others' libraries are not even imported."""
    module = importlib.import_module(f"worker.api.runners.{settings.runner}.runner")
    made: Runner = module.make(settings, stream_key)
    return made


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise PortInUse(host, port, why) from error
