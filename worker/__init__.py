"""One browser task on a live display, shown over noVNC and ended cleanly."""

import os
import sys

# `python -m worker…` puts the working directory and PYTHONPATH before the standard library, so the
# interpreter is started once more without them. Both modules above are built in or already loaded:
# nothing has been imported from there yet. argv[0] is `-m` while the module is being located; the
# other arguments are those of the module, whose name precedes them.
if sys.argv[:1] == ["-m"] and not sys.flags.isolated:
    _name = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
    if _name.partition(".")[0] == "worker":
        os.execv(sys.executable, [sys.executable, "-I", "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
