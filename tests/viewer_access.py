"""One probe for each row of the table "What viewers and accounts can do" of worker/README.md."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

import httpx
from rfb_client import Refused, Viewer
from worker_run import eventually
from x_client import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isolated_api import Victim

_FRAME_S: Final = 10.0
_PLACES_PX: Final = ((321, 123), (7, 7))
_ROLES: Final = ("control", "view")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What a viewer, an account or a stranger has.

    Attributes:
        victim: the task that it tries to access.
        key: what is sent as API key.
        url: makes a stream URL with what the caller has.
        controls: whether to wait for the effect of its input.
    """

    victim: Victim
    key: str
    url: Callable[[], str]
    controls: bool = False

    def answer(self, path: str, method: str = "GET") -> httpx.Response:
        """The API's answer for the task."""
        api = self.victim.api
        address = f"{api.url}/api/v1/tasks/{self.victim.task_id}{path}"
        headers = {"x-api-key": self.key}
        return httpx.request(method, address, headers=headers, timeout=20)

    def reads(self, path: str) -> bool:
        """Whether the API answers with content."""
        return self.answer(path).status_code == 200

    @contextlib.contextmanager
    def watching(self) -> Iterator[Viewer]:
        """A viewer that has received the screen."""
        with connected(self.url()) as viewer:
            viewer.request_update(incremental=False, w=1, h=1)
            viewer.read_update(_FRAME_S)
            yield viewer


def callers(victim: Victim, owner: str, other: str) -> dict[str, Caller]:
    """The columns of the table: what each has; `owner` and `other` are API keys."""

    def owners_url(role: str) -> str:
        answer = httpx.get(
            f"{victim.api.url}/api/v1/tasks/{victim.task_id}/stream",
            params={"role": role},
            headers={"x-api-key": owner},
            timeout=20,
        )
        return str(answer.raise_for_status().json()["stream_url"])

    bare = owners_url("view").partition("?")[0]

    def account_url(key: str) -> str:
        own = Caller(victim=victim, key=key, url=str).answer("/stream?role=control")
        return str(own.json()["stream_url"]) if own.status_code == 200 else bare

    tokens = {role: parse_qs(urlsplit(owners_url(role)).query)["token"][0] for role in _ROLES}
    found = {
        "another account": Caller(victim=victim, key=other, url=lambda: account_url(other)),
        "neither": Caller(victim=victim, key="", url=lambda: bare),
    }
    for role in _ROLES:
        found[f"`{role}` viewer"] = Caller(
            victim=victim,
            key=tokens[role],
            url=functools.partial(owners_url, role),
            controls=role == "control",
        )
    found["its account"] = Caller(  # the last one, since it can cancel the task
        victim=victim, key=owner, url=lambda: account_url(owner), controls=True
    )
    return found


def sees_the_display(caller: Caller) -> bool:
    """Whether the screen's content arrives."""
    try:
        with caller.watching():
            return True
    except Refused:
        return False


def moves_the_pointer(caller: Caller) -> bool:
    """Whether pointer events change the display; they take the same way as keys."""
    left = caller.victim.left
    try:
        with caller.watching() as viewer, Observer(left["display"], left["xauthority"]) as observer:
            before = observer.pointer_position()
            viewer.pointer(*(_PLACES_PX[before == _PLACES_PX[0]]))
            viewer.request_update(incremental=False, w=1, h=1)
            viewer.read_update(_FRAME_S)  # what it sent before has been processed
            if caller.controls:
                eventually(lambda: observer.pointer_position() != before)
            return observer.pointer_position() != before
    except Refused:
        return False


def uses_a_token_again(caller: Caller) -> bool:
    """Whether a second connection with a used token is accepted."""
    url = caller.url()
    try:
        for _ in range(2):
            with connected(url) as viewer:
                viewer.close()
    except Refused:
        return False
    return True


def connected(url: str) -> Viewer:
    """A viewer; 409 means that the last controller has left only just now, and keeps the token."""

    def attempt() -> Viewer | None:
        try:
            return Viewer.connect(url)
        except Refused as refused:
            if refused.status != HTTPStatus.CONFLICT:
                raise
        return None

    viewer: Viewer = eventually(attempt)
    return viewer


def cancels(caller: Caller) -> bool:
    """Whether the task is ended: the last probe."""
    return caller.answer("/cancel", "POST").status_code == 202


PROBES: Final[dict[str, Callable[[Caller], bool]]] = {
    "see the display": sees_the_display,
    "send keys and pointer": moves_the_pointer,
    "connect again with a used token": uses_a_token_again,
    "get stream URLs of the task": lambda caller: caller.reads("/stream"),
    "see the task's status and output": lambda caller: caller.reads(""),
    "read its log": lambda caller: caller.reads("/artifacts/task.log"),
    "read its artifacts": lambda caller: caller.reads("/artifacts/private.txt"),
    "cancel it": cancels,
}
