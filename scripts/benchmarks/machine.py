"""The machine that the benchmark runs on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from benchmarks.systems import chromium


def description() -> str:
    """Processor, memory and versions, in one line."""
    cpu = _field(Path("/proc/cpuinfo"), "model name")
    memory_gb = int(_field(Path("/proc/meminfo"), "MemTotal").split()[0]) / 1024 / 1024
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    browser = subprocess.run(
        [chromium(), "--version"], capture_output=True, text=True, check=False
    ).stdout.split()
    version = next((word for word in browser if word[0].isdigit()), "")
    return (
        f"{os.cpu_count()} cores ({cpu}), {memory_gb:.0f} GB, {system}, "
        f"Python {platform.python_version()}, Chromium {version.partition('.')[0]}"
    )


def _field(file: Path, name: str) -> str:
    for line in file.read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "?"
