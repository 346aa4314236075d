"""Tokens: only a good one, for this task and this moment, opens a stream."""

from __future__ import annotations

import base64
import hmac
import json
import time

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


def claims(**changes):
    """Good claims, changed; None removes one."""
    now = int(time.time())
    good = {"aud": "stream", "sub": TASK, "role": "view", "iat": now, "exp": now + 60, "jti": "j"}
    return {name: value for name, value in (good | changes).items() if value is not None}


@pytest.mark.parametrize("role", list(Role))
def test_good(role):
    """A minted token gives its role."""
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
def test_bad_claims(changes):
    """A claim that is wrong or missing refuses the token."""
    token = jwt.encode(claims(**changes), KEY, algorithm="HS256") if changes != {"jti": 7} else "x"
    with pytest.raises(InvalidToken):
        tokens.verify(token, KEY, TASK)


def test_bad_signatures():
    """Another key, `alg: none`, another algorithm and a cut token are refused."""
    good = tokens.mint(KEY, TASK)
    bad = [
        jwt.encode(claims(), b"k" * 32, algorithm="HS256"),
        jwt.encode(claims(), None, algorithm="none"),
        jwt.encode(claims(), KEY * 2, algorithm="HS512"),
        good[:-1],
        good + "A" * 4000,
        good.rpartition(".")[0],
        "",
    ]
    for token in bad:
        with pytest.raises(InvalidToken):
            tokens.verify(token, KEY, TASK)


@given(st.text(max_size=300))
def test_garbage(text):
    """Garbage is refused, and never raises anything else."""
    with pytest.raises(InvalidToken):
        tokens.verify(text, KEY, TASK)


def test_once():
    """A token can be used once; websockify's question is answered with the Unix socket."""
    plugin = StreamTokenPlugin(TASK, KEY, SOCKETS)
    token = tokens.mint(KEY, TASK)
    assert plugin.lookup(token) == ("unix_socket", "/view.sock")
    plugin.spend(plugin.check(token))
    assert plugin.lookup(token) is None


@pytest.mark.parametrize("role", list(Role))
def test_a_socket_for_each_role(role):
    """A token leads to its role's x11vnc."""
    plugin = StreamTokenPlugin(TASK, KEY, SOCKETS)
    assert plugin.lookup(tokens.mint(KEY, TASK, role)) == ("unix_socket", SOCKETS[role])


def test_derived_keys():
    """Each task's key is its own."""
    master = b"m" * 32
    assert tokens.derive_key(master, "a") != tokens.derive_key(master, "b")


@given(st.integers(0, 400), st.sampled_from(["cut", "flipped"]))
def test_damaged(place, how):
    """A token cut or changed anywhere is refused."""
    good = tokens.mint(KEY, TASK)
    place %= len(good) - 1
    other = "A" if good[place] != "A" else "B"
    bad = good[:place] if how == "cut" else good[:place] + other + good[place + 1 :]
    with pytest.raises(InvalidToken):
        tokens.verify(bad, KEY, TASK)


@pytest.mark.parametrize(
    "algorithm", ["RS256", "ES256", "PS256", "none", "None", "hs256", "", None]
)
def test_the_token_does_not_choose_the_algorithm(algorithm):
    """Whatever its header claims, with a signature that HS256 and the key would make."""
    header, payload = {"typ": "JWT", "alg": algorithm}, claims()
    signed = ".".join(encoded(part) for part in (header, payload))
    signature = hmac.digest(KEY, signed.encode(), "sha256")
    with pytest.raises(InvalidToken):
        tokens.verify(
            f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}", KEY, TASK
        )
    with pytest.raises(InvalidToken):
        tokens.verify(f"{signed}.", KEY, TASK)


def encoded(part):
    """A part of a JWT."""
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def test_used_tokens_are_forgotten_when_they_expire():
    """What is remembered of used tokens does not grow for ever, and an expired one is refused."""
    plugin = StreamTokenPlugin(TASK, KEY, SOCKETS)
    for number in range(1000):
        plugin.used.add(str(number), int(time.time()) - 1)
    assert len(plugin.used.items()) < 500
    with pytest.raises(InvalidToken):
        plugin.check(tokens.mint(KEY, TASK, ttl_s=-1))
