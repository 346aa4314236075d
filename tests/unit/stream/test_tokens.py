"""Stream tokens: only a valid one, for this task and this moment, opens a stream."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.stream import tokens
from worker.stream.token_plugin import StreamTokenPlugin
from worker.stream.tokens import InvalidToken, Role

KEY = bytes(range(32))
TASK = "a-task"
SOCKETS = {Role.VIEW: "/view.sock", Role.CONTROL: "/control.sock"}


def claims(**changes: Any) -> dict[str, Any]:
    """Valid claims, changed; None removes one."""
    now = int(time.time())
    good = {"aud": "stream", "sub": TASK, "role": "view", "iat": now, "exp": now + 60, "jti": "j"}
    return {name: value for name, value in (good | changes).items() if value is not None}


def refuse(token: str) -> None:
    with pytest.raises(InvalidToken):
        tokens.verify(token, KEY, TASK)


def encoded(part: Any) -> str:
    """A part of a JWT (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def signed(header: Any, payload: Any) -> str:
    """A JWT with a valid HS256 signature, whatever its header and payload are."""
    text = f"{encoded(header)}.{encoded(payload)}"
    signature = hmac.digest(KEY, text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize("role", list(Role))
def test_a_minted_token_grants_its_role(role: Role) -> None:
    assert tokens.verify(tokens.mint(KEY, TASK, role), KEY, TASK).role is role


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1},
        {"exp": None},
        {"iat": int(time.time()) + 1000},
        {"iat": None},
        {"aud": "api"},
        {"aud": None},
        {"sub": "another"},
        {"sub": None},
        {"role": "admin"},
        {"role": None},
        {"jti": None},
        {"jti": ""},
        {"jti": "x" * 100},
        {"jti": 7},
    ],
)
def test_a_wrong_or_missing_claim_is_refused(changes: dict[str, Any]) -> None:
    refuse(signed({"typ": "JWT", "alg": "HS256"}, claims(**changes)))


def test_an_expired_token_is_refused() -> None:
    refuse(tokens.mint(KEY, TASK, ttl_s=-1))


def test_a_bad_signature_is_refused() -> None:
    good = tokens.mint(KEY, TASK)
    refuse(jwt.encode(claims(), b"k" * 32, algorithm="HS256"))
    refuse(jwt.encode(claims(), "", algorithm="none"))
    refuse(jwt.encode(claims(), KEY * 2, algorithm="HS512"))
    refuse(good[:-1])
    refuse(good + "A" * 4000)
    refuse(good.rpartition(".")[0])
    refuse("")


@given(st.text(max_size=300))
def test_arbitrary_text_is_refused(text: str) -> None:
    refuse(text)


@given(st.integers(0, 400), st.booleans())
def test_a_damaged_token_is_refused(place: int, cut: bool) -> None:
    good = tokens.mint(KEY, TASK)
    place %= len(good) - 1
    other = "A" if good[place] != "A" else "B"
    refuse(good[:place] if cut else good[:place] + other + good[place + 1 :])


@pytest.mark.parametrize(
    "algorithm", ["RS256", "ES256", "PS256", "none", "None", "hs256", "", None]
)
def test_a_token_cannot_choose_its_algorithm(algorithm: str | None) -> None:
    token = signed({"typ": "JWT", "alg": algorithm}, claims())
    refuse(token)
    refuse(f"{token.rpartition('.')[0]}.")


@pytest.mark.parametrize("role", list(Role))
def test_the_plugin_maps_a_token_to_the_socket_of_its_role(role: Role) -> None:
    target = StreamTokenPlugin(TASK, KEY, SOCKETS).lookup(tokens.mint(KEY, TASK, role))
    assert target == ("unix_socket", SOCKETS[role])
    assert target is not None
    assert target.grant.role is role


def test_the_plugin_maps_an_invalid_token_to_nothing() -> None:
    plugin = StreamTokenPlugin(TASK, KEY, SOCKETS)
    assert plugin.lookup(tokens.mint(KEY, TASK, ttl_s=-1)) is None
    assert plugin.lookup(tokens.mint(b"x" * 32, TASK)) is None
    assert plugin.lookup("") is None


def test_each_task_has_a_key_of_its_own() -> None:
    master = b"m" * 32
    assert tokens.derive_key(master, "a") != tokens.derive_key(master, "b")
