"""Which variables of the API's environment the workers of the local runner, and so tasks, get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worker.settings import PREFIX

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_PROXIES: Final = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
PASSED_ON: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "PYTHONPATH"),
    *("LANG", "LANGUAGE", "LC_*", "TZ"),
    *_PROXIES,
    *(name.upper() for name in _PROXIES),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    "NODE_EXTRA_CA_CERTS",
    *("FONTCONFIG_FILE", "FONTCONFIG_PATH", "FONTCONFIG_SYSROOT"),
    *("XDG_DATA_DIRS", "XDG_CONFIG_DIRS"),
    *("PLAYWRIGHT_BROWSERS_PATH", "PLAYWRIGHT_NODEJS_PATH", "PLAYWRIGHT_HOST_PLATFORM_OVERRIDE"),
)
"""Names, or their beginnings followed by `*`."""


def passed_on(environ: Mapping[str, str], further: Collection[str] = ()) -> dict[str, str]:
    """The variables of an environment that tasks get, none of the API's own (`WORKER_…`).

    Args:
        environ: the API's environment.
        further: names, or beginnings followed by `*`, that are passed on besides PASSED_ON.
    """
    patterns = (*PASSED_ON, *further)
    names = frozenset(each for each in patterns if not each.endswith("*"))
    beginnings = tuple(each[:-1] for each in patterns if each.endswith("*"))
    return {
        name: value
        for name, value in environ.items()
        if (name in names or name.startswith(beginnings)) and not name.startswith(PREFIX)
    }
