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
    parser.add_argument(
        "--seconds", type=float, default=60, help="duration; 0: the corpus only (default: 60)"
    )
    parser.add_argument(
        "--display",
        choices=("fake", "real", "both"),
        default="both",
        help="behind the stream server: a fake VNC server that checks what it gets, a real x11vnc,"
        " or one after the other, for half of the time each (default: both)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the mutations (default: 0)")
    parser.add_argument("--jobs", type=int, default=6, help="simultaneous connections (default: 6)")
    parser.add_argument(
        "--corpus", type=Path, default=CORPUS, help="the seeds; cases that cause a defect are added"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="deliver only this case")
    options = parser.parse_args()
    displays = [kind for kind in ("fake", "real") if options.display in {kind, "both"}]
    results = []
    for kind in displays:
        print(f"fuzz: with a {kind} display")
        real = kind == "real"
        if options.replay is not None:
            results.append(replay(case.read(options.replay), real_display=real))
            continue
        plan = Plan(
            seconds=options.seconds / len(displays),
            seed=options.seed,
            jobs=options.jobs,
            corpus=options.corpus,
            real_display=real,
        )
        results.append(run(plan))
    return max(results)


if __name__ == "__main__":
    sys.exit(main())
