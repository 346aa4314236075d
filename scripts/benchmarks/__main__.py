"""Measure the worker and its baselines; print the table, or also write it into the README."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import (
    connect_time,
    cpu_and_memory,
    frame_rates,
    machine,
    many_at_once,
    readme,
    stream_url_latency,
    task_end,
    task_start,
    update_latency,
)
from benchmarks.plan import Plan
from benchmarks.table_line import Line

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS: Final[dict[str, Callable[[Plan], list[Line]]]] = {
    "ab": task_start.a_and_b,
    "c": task_end.c,
    "d": connect_time.d,
    "e": update_latency.e,
    "f": frame_rates.f,
    "g": frame_rates.g,
    "h": cpu_and_memory.h,
    "i": cpu_and_memory.i,
    "j": many_at_once.j,
    "k": stream_url_latency.k,
}


def main() -> int:
    arguments = _parser().parse_args()
    chosen = [letter.strip() for letter in arguments.only.split(",")] if arguments.only else []
    parts = {keys: part for keys, part in PARTS.items() if not chosen or set(keys) & set(chosen)}
    if not parts:
        raise SystemExit(f"bench: --only takes letters of {', '.join(''.join(PARTS))}")
    if arguments.table_of:
        lines, plan = _read_json(arguments.table_of)
        readme.write(readme.table(lines, plan, machine.description()), plan.stages)
        return 0
    plan = Plan(pairs=arguments.pairs, parts=len(parts))
    if arguments.quick:
        plan = Plan(
            pairs=1, window_s=1.0, workers_at_once=2, viewer_counts=(0, 1), parts=len(parts)
        )
    lines, failed = _measure(parts, plan)
    text = readme.table(lines, plan, machine.description())
    print(text)
    if arguments.json:
        _write_json(arguments.json, lines, plan)
    if arguments.write_readme:
        readme.write(text, plan.stages)
    return int(failed)


def _measure(parts: dict[str, Callable[[Plan], list[Line]]], plan: Plan) -> tuple[list[Line], bool]:
    """Measure each part; return the lines, and whether any part failed."""
    lines: list[Line] = []
    failed = False
    for keys, part in parts.items():
        try:
            lines += part(plan)
        except Exception as error:  # the remaining parts are measured
            failed = True
            plan.skip(f"{', '.join(keys)} failed: {type(error).__name__}: {error}")
            plan.next_part()
    return lines, failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", metavar="a,c", help="measure only these lines of the table")
    parser.add_argument("--pairs", type=int, default=7, metavar="N", help="measurements per line")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement")
    parser.add_argument("--quick", action="store_true", help="test the benchmark itself")
    parser.add_argument(
        "--table-of", type=Path, metavar="FILE", help="write the README's from an earlier --json"
    )
    parser.add_argument(
        "--write-readme", action="store_true", help="write table and picture into the README"
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
