"""Reads settings from options and the environment, and checks the names of the variables."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import ValidationError
from pydantic_settings import SettingsError

from worker.errors import SettingError
from worker.settings.run import RunSettings
from worker.settings.shared import PREFIX, SharedSettings, option, variable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.settings.serve import ServeSettings

S = TypeVar("S", bound=SharedSettings)

_NEAR: Final = 0.75  # difflib's ratio if one of four letters is replaced, or two are swapped
_LENGTHS_DIFFER_MAX: Final = 3  # unlike Kubernetes' service links, such as STREAM_SERVICE_PORT
_TELLING_CHARS_MIN: Final = 7  # a word such as ORIGINS; platforms use ID, DIR, MEMORY and SECRET
_UNITS: Final = frozenset({"S", "SEC", "SECS", "SECOND", "SECONDS", "MS", "BYTES", "MB"})


def load(
    kind: type[S], options: Mapping[str, object], environ: Mapping[str, str] | None = None
) -> S:
    """Read the settings of one program.

    Args:
        kind: the program's class.
        options: values of command-line options, by field name; they override the environment.
        environ: the environment whose names are checked; the values come from `os.environ`.

    Raises:
        SettingError: a value is invalid, or an unknown variable nearly matches a setting.
    """
    unknown_variables(kind, os.environ if environ is None else environ)
    try:
        return kind(**dict(options))  # type: ignore[arg-type]  # pydantic checks the values
    except ValidationError as error:
        raise SettingError(_explain(kind, error, options)) from None
    except SettingsError:
        # Only `inputs` is JSON; the original message would contain the value.
        raise SettingError(f"{PREFIX}INPUTS: must be a JSON object") from None


def load_serve(
    options: Mapping[str, object], environ: Mapping[str, str] | None = None
) -> ServeSettings:
    """Read the settings of `worker serve`, with those of the selected runner.

    The settings of `worker run` in the environment are validated too: an invalid one would make
    every task fail.

    Args:
        options: as for `load`.
        environ: as for `load`.

    Returns:
        the LocalSettings, DockerSettings or KubernetesSettings of the selected runner.

    Raises:
        SettingError: as for `load`.
    """
    from worker.settings.serve import ServeSettings  # noqa: PLC0415 - not for `worker run`

    load(RunSettings, {}, environ)
    chosen = load(ServeSettings, options, environ)
    if chosen.runner == "docker":
        from worker.settings.docker import DockerSettings  # noqa: PLC0415 - only for this runner

        return load(DockerSettings, options, environ)
    if chosen.runner == "kubernetes":
        from worker.settings.kubernetes import KubernetesSettings  # noqa: PLC0415 - the same

        return load(KubernetesSettings, options, environ)
    from worker.settings.local import LocalSettings  # noqa: PLC0415 - the same

    return load(LocalSettings, options, environ)


def every_class() -> tuple[type[SharedSettings], ...]:
    """The settings classes of all programs and runners."""
    from worker.settings.docker import DockerSettings  # noqa: PLC0415 - not for `worker run`
    from worker.settings.kubernetes import KubernetesSettings  # noqa: PLC0415 - the same
    from worker.settings.local import LocalSettings  # noqa: PLC0415 - the same
    from worker.settings.serve import ServeSettings  # noqa: PLC0415 - the same

    return RunSettings, ServeSettings, LocalSettings, DockerSettings, KubernetesSettings


def unknown_variables(kind: type[SharedSettings], environ: Mapping[str, str]) -> list[str]:
    """The `WORKER_…` variables that no program of this package reads.

    Args:
        kind: the running program's class; its names are looked up first.
        environ: the environment.

    Raises:
        SettingError: a variable nearly matches a setting, so it is probably a typing error.
    """
    own = {variable(name) for name in kind.model_fields}
    others = {name for name in environ if name.upper().startswith(PREFIX)} - own
    if not others:
        return []
    known = [variable(name) for each in every_class() for name in each.model_fields]
    unknown = sorted(others.difference(known))
    for name in unknown:
        if nearest := _nearest(name, known):
            raise SettingError(f"unknown variable {name}; did you mean {nearest}?")
    return unknown


def _nearest(name: str, known: list[str]) -> str | None:
    import difflib  # noqa: PLC0415 - only if there is an unknown variable

    # Without the prefix, which would make any two names similar.
    ending = name.upper().removeprefix(PREFIX)
    endings = [each.removeprefix(PREFIX) for each in known]
    similar = [each for each in endings if abs(len(each) - len(ending)) <= _LENGTHS_DIFFER_MAX]
    near = difflib.get_close_matches(ending, similar, 1, _NEAR)
    near += [each for each in endings if _abbreviates(ending, each)]
    return PREFIX + near[0] if near else None


def _abbreviates(ending: str, known: str) -> bool:
    """Whether a name consists of words of a setting, apart from the unit: ORIGINS, TIMEOUT_MS."""
    words = set(ending.split("_")) - _UNITS
    telling = any(len(word) >= _TELLING_CHARS_MIN for word in words)
    return telling and words <= set(known.split("_"))


def _explain(
    kind: type[SharedSettings], error: ValidationError, options: Mapping[str, object]
) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        field = str(problem["loc"][0])
        flag = option(kind, field) if field in options else None
        message = problem["msg"].removeprefix("Value error, ")
        problems.append(f"{flag or variable(field)}: {message}")
    return "; ".join(problems)
