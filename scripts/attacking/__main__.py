"""Attack an API; the exit code is 1 if another account was affected."""

from __future__ import annotations

import argparse
import sys

from attacking.run import Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/attack", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of the attack (default: 60)")
    parser.add_argument(
        "--only", action="append", help="an attacker by name; repeatable (default: all at once)"
    )
    options = parser.parse_args()
    return run(Plan(seconds=options.seconds, only=tuple(options.only or ())))


if __name__ == "__main__":
    sys.exit(main())
