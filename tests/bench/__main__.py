"""Runs every benchmark, or those named: `python -m tests.bench [NAME...]`. JSON lines go to standard output, the rest to standard error."""

import importlib
import pkgutil
import sys

import tests.bench

PREFIX = "bench_"


def names() -> list[str]:
    """Return the names of all benchmarks, in alphabetical order."""
    return sorted(
        module.name.removeprefix(PREFIX) for module in pkgutil.iter_modules(tests.bench.__path__) if module.name.startswith(PREFIX)
    )


def main(wanted: list[str]) -> int:
    """Run the benchmarks one after another."""
    unknown = [name for name in wanted if name not in names()]
    if unknown:
        print(f"There is no benchmark {unknown[0]}; there are {', '.join(names())}.", file=sys.stderr)
        return 2
    for name in wanted or names():
        importlib.import_module(f"tests.bench.{PREFIX}{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
