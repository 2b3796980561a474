"""Memory of the worker process while 1,000,000 enrollments wait: at rest, and its peak while some hundred runs are due.

The baseline is the same process with nobody waiting, waking as many runs. The waiting have runs that Prefect never heard of: asleep,
none is ever asked for. Sizes: BENCH_WAITING (1,000,000), BENCH_MEMORY_RUNS (200), BENCH_MEMORY_COHORT (50 contacts in each).
"""

import asyncio
import os
import re
import time
from pathlib import Path

from distmark.clock import wall_now
from tests.bench import bench_finding
from tests.bench.crowd import enrolled, launched, mail_campaign, version_of
from tests.bench.report import report
from tests.bench.stand import Plant, people, plant, register, say, settle, size, until, worker

RUNS, PER_RUN = size("MEMORY_RUNS", 200), size("MEMORY_COHORT", 50)
LIMIT_MB = 250.0
LONGEST_SECONDS = 600.0
MINUTE = 65.0  # every system flow comes round once


def main() -> None:
    """Measure with nobody waiting, then with very many."""
    with plant() as here:
        rest, peak = _megabytes(here)
        say(f"with nobody waiting: {rest:.0f} MB, at most {peak:.0f} MB; making {bench_finding.MANY:,} enrollments")
        bench_finding.fill_waiting(here.stage, people(here.stage, bench_finding.MANY, consents=False), due=0)
        settle(here.db)
        many_rest, many_peak = _megabytes(here)
        report("memory_waiting_rest", many_rest, "MB", rest, at_most=LIMIT_MB, waiting=bench_finding.MANY)
        report("memory_waiting_peak", many_peak, "MB", peak, at_most=LIMIT_MB)


def _megabytes(here: Plant) -> tuple[float, float]:
    """Return the worker's resident memory after its wakes, and its peak."""
    campaign = mail_campaign(here.stage, PER_RUN)
    register(here, version_of(here.stage, campaign))
    enrolled(here.stage, campaign, people(here.stage, RUNS * PER_RUN))
    runs = asyncio.run(launched(here, wall_now()))
    before = len(here.sink.arrived())
    with worker(here) as running:
        began = time.monotonic()
        say(f"{runs} runs are due")
        until(lambda: len(here.sink.arrived()) - before >= RUNS * PER_RUN, LONGEST_SECONDS, "Not every mail arrived", pause=0.5)
        time.sleep(max(0.0, float(os.environ.get("BENCH_MEMORY_SECONDS", MINUTE)) - (time.monotonic() - began)))
        return _kilobytes(running.pid, "VmRSS") / 1024, _kilobytes(running.pid, "VmHWM") / 1024


def _kilobytes(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"This system does not say how much memory a process takes ({name}).")
    return int(found[1])
