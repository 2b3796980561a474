"""The tests, each failed one with a second chance: what needed it is listed by name and counted, and more than three fail the gate."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

MOST_FLAKES = 3
LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")
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


def _run(arguments: Sequence[str]) -> int:
    return subprocess.run(["make", "test", f"ARGS={' '.join(arguments)}"], check=False).returncode  # noqa: S603, S607


def _pytest(arguments: Sequence[str]) -> int:
    """Run the tests through make and return pytest's exit code, which make does not pass on."""
    code = _run(arguments)
    return code if code in (0, 1) else 1 if _failed() else code


if __name__ == "__main__":
    LAST_FAILED.unlink(missing_ok=True)
    sys.exit(gate(_pytest, _failed))
