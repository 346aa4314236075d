"""Fuzz a stream server; the exit code is 1 if a defect was found."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fuzzing import case
from fuzzing.run import Plan, replay, run

CORPUS = Path(__file__).parents[2] / "tests" / "fuzz_corpus"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="duration (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mutations (default: 0)")
    parser.add_argument("--jobs", type=int, default=6, help="simultaneous connections (default: 6)")
    parser.add_argument(
        "--corpus", type=Path, default=CORPUS, help="the seeds; cases that cause a defect are added"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="deliver only this case")
    options = parser.parse_args()
    if options.replay is not None:
        return replay(case.read(options.replay))
    plan = Plan(
        seconds=options.seconds, seed=options.seed, jobs=options.jobs, corpus=options.corpus
    )
    return run(plan)


if __name__ == "__main__":
    sys.exit(main())
