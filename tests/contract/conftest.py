"""The runners that the contract is tested on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from contract.backend import Backend
from contract.docker import DockerBackend
from contract.kubernetes import KubernetesBackend
from contract.local import LocalBackend
from contract.memory import MemoryBackend


@pytest.fixture(params=["local", "docker", "kubernetes", "memory"])
async def backend(request, monkeypatch, tmp_path) -> AsyncIterator[Backend]:
    """A runner's backend; the test opens the runner."""
    made: Backend
    match request.param:
        case "local":
            request.getfixturevalue("display_programs")
            request.getfixturevalue("ipc_namespace")
            made = LocalBackend()
        case "docker":
            made = DockerBackend(monkeypatch)
        case "kubernetes":
            made = KubernetesBackend(monkeypatch, tmp_path)
        case _:
            made = MemoryBackend()
    yield made
    await made.close()
