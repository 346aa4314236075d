"""Threads for blocking calls: a fixed number for each purpose, so that none waits for another's."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    _Call = tuple[concurrent.futures.Future[Any], Callable[[], Any]]

T = TypeVar("T")


class Threads:
    """A fixed number of threads, all of which are started at once.

    An executor that starts a thread for a call fails if it cannot, and makes the call later all the
    same, unknown to its caller. These are daemon threads: one that hangs does not delay the exit.
    """

    def __init__(self, count: int, name: str) -> None:
        """Start the threads.

        Raises:
            RuntimeError: the machine cannot start them.
        """
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(count)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:
            self.close()
            raise

    async def call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a function in one of the threads, after the calls before it."""
        return await asyncio.wrap_future(self.submit(function, *arguments, **named))

    def submit(
        self, function: Callable[..., T], *arguments: Any, **named: Any
    ) -> concurrent.futures.Future[T]:
        """`call` from outside of an event loop."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._calls.put((future, partial(function, *arguments, **named)))
        return future

    def close(self) -> None:
        """End each thread after the calls that were made before."""
        for _ in self._threads:
            self._calls.put(None)

    def join(self) -> None:
        """`close`, and wait for the end of the threads."""
        self.close()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = function()
            except BaseException as error:  # raised where it is awaited
                future.set_exception(error)
            else:
                future.set_result(result)
            del call, future, function  # results may be large


class SharedThreads:
    """Threads for slow calls on behalf of accounts, each of which has a limited share of them."""

    def __init__(self, count: int, share: int, name: str) -> None:
        """Start the threads.

        Args:
            count: the number of threads.
            share: how many of them one account may occupy.
            name: of the threads.
        """
        self._threads = Threads(count, name)
        self._share = share
        self._free: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def call(
        self, account: str, function: Callable[..., T], /, *arguments: Any, **named: Any
    ) -> T:
        """Call a function in a thread, when the account's share is not in use."""
        free = self._free.setdefault(account, asyncio.Semaphore(self._share))
        await free.acquire()
        loop = asyncio.get_running_loop()

        def release(_: object) -> None:
            # The thread is in use until the call ends, also if its caller was cancelled.
            if not loop.is_closed():
                loop.call_soon_threadsafe(free.release)

        future = self._threads.submit(function, *arguments, **named)
        future.add_done_callback(release)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the threads after the calls that were made before."""
        self._threads.close()


class SharedSlots:
    """Limits what threads do at the same time, in total and on behalf of each account.

    An account that waits for its own share keeps no other account waiting.
    """

    def __init__(self, count: int, share: int) -> None:
        """Make free slots.

        Args:
            count: the number of slots.
            share: how many of them one account may use.
        """
        self._free = threading.Semaphore(count)
        self._share = share
        self._lock = threading.Lock()
        self._shares: WeakValueDictionary[str, threading.Semaphore] = WeakValueDictionary()

    @contextlib.contextmanager
    def of(self, account: str) -> Iterator[None]:
        """Wait for a slot, and use it meanwhile; blocks."""
        with self._lock:
            own = self._shares.setdefault(account, threading.Semaphore(self._share))
        with own, self._free:
            yield
