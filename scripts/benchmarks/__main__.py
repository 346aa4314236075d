"""The command: measure, print the table, and on demand write it into the README."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import costs, machine, readme, serving, starting, watching
from benchmarks.line import Line
from benchmarks.plan import Plan

PARTS = {
    "ab": starting.a_and_b,
    "c": starting.c,
    "d": watching.d,
    "e": watching.e,
    "f": watching.f,
    "g": watching.g,
    "h": costs.h,
    "i": costs.i,
    "j": starting.j,
    "k": serving.k,
}


def main() -> int:
    """Measure."""
    arguments = _parser().parse_args()
    wanted = [letter.strip() for letter in arguments.only.split(",")] if arguments.only else []
    parts = {keys: part for keys, part in PARTS.items() if not wanted or set(keys) & set(wanted)}
    if not parts:
        raise SystemExit(f"bench: --only takes letters of {', '.join(''.join(PARTS))}")
    plan = Plan(pairs=arguments.pairs, parts=len(parts))
    if arguments.table_of:
        lines, plan = _read_json(arguments.table_of)
        readme.write(readme.table(lines, plan, machine.description()), plan.stages)
        return 0
    if arguments.quick:
        plan = Plan(
            pairs=1, window_s=1.0, workers_at_once=2, viewer_counts=(0, 1), parts=len(parts)
        )
    lines = []
    failed = False
    for keys, part in parts.items():
        try:
            lines += part(plan)
        except Exception as error:
            failed = True
            plan.skip(f"{', '.join(keys)} broke off: {type(error).__name__}: {error}")
            plan.next_part()
    text = readme.table(lines, plan, machine.description())
    print(text)
    if arguments.json:
        _write_json(arguments.json, lines, plan)
    if arguments.write_readme:
        readme.write(text, plan.stages)
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", metavar="a,c", help="only these lines of the table")
    parser.add_argument("--pairs", type=int, default=7, metavar="N", help="of each line")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement")
    parser.add_argument("--quick", action="store_true", help="see that the bench itself works")
    parser.add_argument(
        "--table-of", type=Path, metavar="FILE", help="write the README's from an earlier --json"
    )
    parser.add_argument(
        "--write-readme", action="store_true", help="put table and picture into the README"
    )
    return parser


def _read_json(file: Path) -> tuple[list[Line], Plan]:
    content = json.loads(file.read_text())
    plan = Plan(pairs=content["pairs"], stages=content["stages_ms"], skipped=content["skipped"])
    lines = [Line.from_json(each) for each in content["lines"]]
    return lines, plan


def _write_json(file: Path, lines: list[Line], plan: Plan) -> None:
    content = {
        "machine": machine.description(),
        "pairs": plan.pairs,
        "lines": [line.json() for line in lines],
        "stages_ms": plan.stages,
        "skipped": plan.skipped,
    }
    file.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
