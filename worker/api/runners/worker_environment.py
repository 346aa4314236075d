"""What of the API's own settings its workers get too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worker.settings import API_NAMES, PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

_EACH_ITS_OWN: Final = frozenset(
    {
        "task_id",
        "timeout_s",
        "port",
        "artifacts_dir",
        "termination_log",
        "inputs",
        "stream_secret",
        "stream_key",
        "stream_base_url",
        "debug_page",
    }
)


def passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """The `WORKER_` variables that hold for every worker: not the API's, not another for each."""
    kept_back = {PREFIX + name.upper() for name in API_NAMES | _EACH_ITS_OWN}
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(PREFIX) and name not in kept_back
    }
