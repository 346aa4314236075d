"""`python -m worker.settings`: updates the settings tables in the READMEs of this checkout."""

from __future__ import annotations

from pathlib import Path

import worker
from worker.settings import tables

if __name__ == "__main__":
    for readme in tables.readmes(Path(worker.__file__).parents[1]):
        text = readme.read_text()
        if (new := tables.updated(text)) != text:
            readme.write_text(new)
