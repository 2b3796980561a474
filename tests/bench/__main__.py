"""Runs every benchmark, or those named: `python -m tests.bench [NAME...]`. JSON lines go to standard output, the rest to standard error.

Each runs in a process of its own, ends by itself, and leaves nothing behind. Sizes are environment variables: BENCH_SCALE=0.01 makes
everything a hundredth, and each bench's own are listed where it begins.
"""

import argparse
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
from typing import Any

import tests.bench
from tests.bench.report import print_table, told

PREFIX = "bench_"
GIVE_UP_SECONDS = float(os.environ.get("BENCH_SECONDS", "1200"))
GOODBYE_SECONDS = 60.0  # for ending what it had started


def names() -> list[str]:
    """Return the names of all benchmarks, in alphabetical order."""
    return sorted(
        module.name.removeprefix(PREFIX) for module in pkgutil.iter_modules(tests.bench.__path__) if module.name.startswith(PREFIX)
    )


def parse(arguments: list[str] | None) -> list[str]:
    """Return the benchmarks asked for; all, when none is named."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(names())}; all when left out")
    wanted: list[str] = parser.parse_args(arguments).names
    unknown = [name for name in wanted if name not in names()]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]}; there are {', '.join(names())}.")
    return wanted or names()


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks one after another; the exit code is 1 when one of them failed."""
    wanted = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that whatever was started is ended
    if len(wanted) == 1:
        return _run_here(wanted[0])
    found: list[dict[str, Any]] = []
    failed = [name for name in wanted if not _run_apart(name, found)]
    print_table(found)
    if failed:
        print(f"Failed: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


def _run_here(name: str) -> int:
    started = time.monotonic()
    importlib.import_module(f"tests.bench.{PREFIX}{name}").main()
    print_table(told())
    print(f"{name} took {time.monotonic() - started:.0f} s.", file=sys.stderr)
    return 0


def _run_apart(name: str, found: list[dict[str, Any]]) -> bool:
    """Run one benchmark in a process of its own, which reads its settings afresh; say whether it ended well."""
    print(f"--- {name}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "tests.bench", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        signal.signal(signal.SIGALRM, lambda *_: process.terminate())
        signal.setitimer(signal.ITIMER_REAL, GIVE_UP_SECONDS)
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                if line.startswith("{"):
                    found.append(json.loads(line))
            return process.wait() == 0
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
