"""Stream tokens: each opens one task's stream once, in one role.

A token is a JWT (RFC 7519) signed with HS256 and the task's own key, which is derived from the
master secret; so the API can make tokens for every task, and a worker only for its own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

KEY_BYTES: Final = 32
TTL_S: Final = 60
TOKEN_MAX_CHARS: Final = 2048
_ALGORITHM: Final = "HS256"
_AUDIENCE: Final = "stream"
_CLAIMS: Final = ("aud", "sub", "role", "iat", "exp", "jti")
_CLOCK_SKEW_S: Final = 5
_JTI_MAX_CHARS: Final = 64
_JTI_BYTES: Final = 16


class Role(StrEnum):
    """What a viewer may do."""

    VIEW = "view"
    CONTROL = "control"


class InvalidToken(Exception):
    """The token does not open this stream. `str()` contains no part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The content of a valid token; `expires_at` is in seconds since 1970."""

    role: Role
    jti: str
    expires_at: int


def derive_key(master: bytes, task_id: str) -> bytes:
    """A task's key: HMAC-SHA256 of `stream:<task id>` under the master secret."""
    return hmac.digest(master, f"stream:{task_id}".encode(), hashlib.sha256)


def random_key() -> bytes:
    """A random key, 32 bytes."""
    return secrets.token_bytes(KEY_BYTES)


def prepare() -> None:
    """Import PyJWT now, which takes 40 ms, instead of in the first request."""
    import jwt  # noqa: F401, PLC0415 - for `mint` and `verify`


def mint(key: bytes, task_id: str, role: Role = Role.VIEW, *, ttl_s: float = TTL_S) -> str:
    """Create a token.

    Args:
        key: the task's key, 32 bytes.
        task_id: the task whose stream it opens.
        role: what its viewer may do.
        ttl_s: how long it can be used to connect.
    """
    import jwt  # noqa: PLC0415 - 40 ms; `worker run` only derives keys

    now = time.time()
    claims = {
        "aud": _AUDIENCE,
        "sub": task_id,
        "role": str(role),
        "iat": int(now),
        "exp": int(now + ttl_s),
        "jti": secrets.token_urlsafe(_JTI_BYTES),
    }
    return jwt.encode(claims, key, algorithm=_ALGORITHM)


def is_signed(token: str, key: bytes) -> bool:
    """Whether a token's signature is one by this key, which alone does not make it valid.

    Refuses most invalid tokens at a tenth of the cost of `verify`.
    """
    if len(token) > TOKEN_MAX_CHARS or not token.isascii():
        return False
    signed, _, signature = token.rpartition(".")
    digest = hmac.digest(key, signed.encode(), hashlib.sha256)
    expected = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return hmac.compare_digest(signature, expected)


def verify(token: str, key: bytes, task_id: str) -> Grant:
    """Check a token's signature and claims; the caller checks whether its `jti` was used.

    Raises:
        InvalidToken: it is not a token for this task and this moment.
    """
    import jwt  # noqa: PLC0415 - the same

    if len(token) > TOKEN_MAX_CHARS:
        raise InvalidToken("too long")
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            audience=_AUDIENCE,
            subject=task_id,
            leeway=0,
            options={"require": list(_CLAIMS), "verify_iat": False},
        )
        issued_at, expires_at = int(claims["iat"]), int(claims["exp"])
        role = Role(claims["role"])
        jti = claims["jti"]
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidToken(type(error).__name__) from None
    if issued_at > time.time() + _CLOCK_SKEW_S:
        raise InvalidToken("issued in the future")
    if not isinstance(jti, str) or not 0 < len(jti) <= _JTI_MAX_CHARS:
        raise InvalidToken("no usable jti")
    return Grant(role=role, jti=jti, expires_at=expires_at)


def stream_url(base_url: str, task_id: str, token: str) -> str:
    """The URL for noVNC's `RFB`.

    Args:
        base_url: `wss://stream.example.com` or `ws://127.0.0.1:6080`.
        task_id: the task.
        token: made by `mint`.
    """
    return f"{base_url.rstrip('/')}/tasks/{task_id}/websockify?token={token}"
