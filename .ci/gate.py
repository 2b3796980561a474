"""The tests, each failed one with a second chance: what needed it is listed by name and counted, and more than three fail the gate."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

MOST_FLAKES = 3
LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")
LAST_EXIT = Path(".pytest_cache/v/distmark/exit")  # written by tests/conftest.py
Run = Callable[[Sequence[str]], int]


def gate(run: Run, failed: Callable[[], list[str]], say: Callable[[str], None] = print) -> int:
    """Return the exit code: 0 when every test passed, at most `MOST_FLAKES` of them only at the second try.

    `run` runs the tests with these further arguments and returns pytest's exit code; `failed` names the tests that failed last.
    """
    code = run([])
    if code == 0:
        say("0 tests needed a second chance")
        return 0
    flakes = failed()
    if code != 1 or not flakes:  # interrupted, or not even collected
        say(f"The tests ended with pytest's exit code {code}")
        return code
    if len(flakes) <= MOST_FLAKES:
        code = run(["--last-failed", "--last-failed-no-failures=none", "-n", "0"])
    say(f"{len(flakes)} tests needed a second chance (at most {MOST_FLAKES} are forgiven):")
    for name in flakes:
        say(f"  {name}")
    return code


def _failed() -> list[str]:
    return sorted(json.loads(LAST_FAILED.read_text())) if LAST_FAILED.exists() else []


def pytest_code(make_code: int, written: int | None) -> int:
    """Return pytest's exit code, which make does not pass on; make's own when pytest did not come to write one down."""
    return written or make_code if make_code else 0


def _run(arguments: Sequence[str]) -> int:
    LAST_EXIT.unlink(missing_ok=True)
    make_code = subprocess.run(["make", "test", f"ARGS={' '.join(arguments)}"], check=False).returncode  # noqa: S603, S607
    return pytest_code(make_code, json.loads(LAST_EXIT.read_text()) if LAST_EXIT.exists() else None)


if __name__ == "__main__":
    LAST_FAILED.unlink(missing_ok=True)
    sys.exit(gate(_run, _failed))
