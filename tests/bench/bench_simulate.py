"""Simulating every sample journey: real seconds, and CPU per contact, for 10,000 contacts over 90 days.

The aim, 60 seconds for 10,000 contacts, is held against the seconds. Sizes: BENCH_SIMULATED (10,000 contacts), BENCH_DAYS (90). What there
is no time for within BENCH_SIMULATE_SECONDS (420) is left out and named.
"""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from distmark.journeys.source import load_source, scan
from distmark.simulation.simulate import simulate
from tests.bench.report import report
from tests.bench.stand import ROOT, say, size

CONTACTS, DAYS = size("SIMULATED", 10_000), int(os.environ.get("BENCH_DAYS", "90"))
LONGEST_SECONDS = float(os.environ.get("BENCH_SIMULATE_SECONDS", "420"))
AIM_SECONDS = 60.0 * CONTACTS / 10_000
START = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)


def main() -> None:
    """Measure one journey after another."""
    began = time.monotonic()
    for path in scan(ROOT / "journey_defs"):
        if time.monotonic() - began > LONGEST_SECONDS - AIM_SECONDS:
            say(f"left out for lack of time: {path.name}")
            continue
        _measure(path)


def _measure(path: Path) -> None:
    say(f"{path.name}: {CONTACTS:,} contacts, {DAYS} days")
    wall, cpu = time.perf_counter(), time.process_time()
    found = simulate(load_source(path), contacts=CONTACTS, start=START, days=DAYS)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    report(f"simulate_{path.name}", wall, "s", at_most=AIM_SECONDS, contacts=CONTACTS, messages=found.messages, wakes=found.wakes)
    report(f"simulate_{path.name}_cpu", cpu / CONTACTS * 1000, "ms CPU/contact")
