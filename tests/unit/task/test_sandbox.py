"""Why Chromium's sandbox does not work, with what to do."""

from __future__ import annotations

import errno

import pytest

from worker.task import sandbox


def test_no_error_is_no_refusal():
    assert sandbox.refusal_text(0) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EUSERS])
def test_an_exhausted_limit_names_the_sysctl(number):
    assert "user.max_user_namespaces" in str(sandbox.refusal_text(number))


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOSYS])
def test_a_refusal_names_the_seccomp_profile(number):
    text = str(sandbox.refusal_text(number))
    assert text.startswith("user namespaces are refused (")
    assert "docker/seccomp.json" in text
