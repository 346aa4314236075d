"""The package's layout."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import worker

MODULES_MAX = 14


def test_no_folder_has_too_many_modules() -> None:
    """A folder of `worker/` holds at most 14 modules, without its `__init__.py`."""
    root = Path(worker.__file__).parent
    modules = [path for path in root.rglob("*.py") if path.name != "__init__.py"]
    counts = Counter(str(path.parent.relative_to(root)) for path in modules)
    assert {folder: count for folder, count in counts.items() if count > MODULES_MAX} == {}
