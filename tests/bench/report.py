"""How a benchmark says what it measured: one JSON object per line, and a table at the end for people."""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_told: list[dict[str, Any]] = []


def report(
    name: str,
    value: float,
    unit: str,
    baseline: float | None = None,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    **more: Any,
) -> None:
    """Print one measurement; `ratio` is value over baseline, both measured in this run, `met` whether the aim was reached."""
    line: dict[str, Any] = {"name": name, "value": round(value, 3), "unit": unit}
    if baseline:
        line |= {"baseline": round(baseline, 3), "ratio": round(value / baseline, 2)}
    if at_least is not None:
        line |= {"aim": f">= {at_least:g}", "met": value >= at_least}
    if at_most is not None:
        line |= {"aim": f"<= {at_most:g}", "met": value <= at_most}
    line |= more
    _told.append(line)
    print(json.dumps(line, ensure_ascii=False), flush=True)


def told() -> list[dict[str, Any]]:
    """Return everything that this process has reported, in order."""
    return list(_told)


def quantiles(values: Sequence[float], *shares: float) -> list[float]:
    """Return the value below which each share (0 to 1) of `values` lies, by nearest rank; infinity when there are none."""
    ordered = sorted(values) or [math.inf]
    return [ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))] for share in shares]


def print_table(lines: Iterable[Mapping[str, Any]]) -> None:
    """Print what was measured for people to read, to standard error: standard output holds the JSON lines."""
    rows = [("what", "value", "unit", "baseline", "ratio", "aim", "met"), *(_row(line) for line in lines)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        shown = [
            cell.rjust(width) if place in (1, 3, 4) else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(shown).rstrip(), file=sys.stderr)


def _row(line: Mapping[str, Any]) -> tuple[str, ...]:
    met = {True: "yes", False: "NO", None: ""}[line.get("met")]
    figures = [f"{line[key]:,.3f}".rstrip("0").rstrip(".") if key in line else "" for key in ("value", "baseline", "ratio")]
    return (line["name"], figures[0], line["unit"], figures[1], figures[2], line.get("aim", ""), met)
