"""The command line of a fuzz run; the exit code is 1 when something was found."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fuzzing import cases
from fuzzing.run import Plan, replay, run

CORPUS = Path(__file__).parents[2] / "tests" / "fuzz_corpus"


def main() -> int:
    """Parse, run, and say how it went."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: 0)")
    parser.add_argument("--jobs", type=int, default=6, help="connections at a time (default: 6)")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="seeds, and where finds go")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="only this case")
    options = parser.parse_args()
    if options.replay is not None:
        return replay(cases.read(options.replay))
    plan = Plan(
        seconds=options.seconds, seed=options.seed, jobs=options.jobs, corpus=options.corpus
    )
    return run(plan)


if __name__ == "__main__":
    sys.exit(main())
