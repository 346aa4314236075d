"""The settings in the API's environment that its workers get too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.settings.run import variables_for_workers

if TYPE_CHECKING:
    from collections.abc import Mapping


def passed_on(environ: Mapping[str, str], *, same_machine: bool) -> dict[str, str]:
    """The variables that every worker gets: not the API's own, and not those set for each task.

    Args:
        environ: the API's environment.
        same_machine: whether the workers are processes of the API's machine; containers do not
            get paths and addresses of that machine.
    """
    names = variables_for_workers(same_machine=same_machine)
    return {name: value for name, value in environ.items() if name in names}
