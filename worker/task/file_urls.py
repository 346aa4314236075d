"""`file://` URLs in the image's Chromium: a managed policy blocks them; a setting allows them.

Chromium reads its policies only from a folder that root owns. The image puts there, beside the
policy that blocks, a link to a file that does not exist. The worker creates that file to make an
exception. On a machine without the link, neither the policy nor the setting has an effect.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

LINK: Final = Path("/etc/chromium/policies/managed/worker-file-urls.json")
_EXCEPTION: Final = {"URLAllowlist": ["file://*", "view-source:file://*"]}


def apply(*, allowed: bool, link: Path = LINK) -> Path | None:
    """Create or remove the exception; returns its file, if it exists.

    Raises:
        OSError: it cannot be written.
    """
    try:
        target = link.readlink()
    except OSError:
        return None  # not in the image
    if not allowed:
        target.unlink(missing_ok=True)
        return None
    target.parent.mkdir(mode=0o700, exist_ok=True)
    target.write_text(json.dumps(_EXCEPTION))
    return target
