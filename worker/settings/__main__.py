"""`python -m worker.settings`: updates the settings tables in the READMEs of the checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

from worker.settings import tables


def main() -> None:
    """Rewrite every tracked README.md whose tables are out of date."""
    listed = subprocess.check_output(["git", "ls-files", "README.md", "**/README.md"], text=True)
    for readme in map(Path, listed.splitlines()):
        text = readme.read_text()
        if (new := tables.updated(text)) != text:
            readme.write_text(new)


if __name__ == "__main__":
    main()
