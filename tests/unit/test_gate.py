"""The second chance of the gate: who gets it, what is said of it, and when it is refused."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("gate", Path(__file__).resolve().parents[2] / ".ci" / "gate.py")
gate = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(gate)


class Runs:
    """Test runs that end with these exit codes, one after the other."""

    def __init__(self, *codes: int) -> None:
        self.codes, self.arguments = list(codes), []

    def __call__(self, arguments: Sequence[str]) -> int:
        self.arguments.append(list(arguments))
        return self.codes.pop(0)


def judged(runs: Runs, failed: Sequence[str]) -> tuple[int, str]:
    lines: list[str] = []
    code = gate.gate(runs, lambda: list(failed), lines.append)
    return code, "\n".join(lines)


def test_tests_that_pass_need_no_second_run() -> None:
    runs = Runs(0)

    assert judged(runs, [])[0] == 0
    assert runs.arguments == [[]]


def test_flake_is_listed_by_name_and_forgiven() -> None:
    code, said = judged(Runs(1, 0), ["tests/a.py::test_b"])

    assert code == 0
    assert "1 tests needed a second chance" in said
    assert "tests/a.py::test_b" in said


def test_test_that_fails_twice_fails_the_gate() -> None:
    assert judged(Runs(1, 1), ["tests/a.py::test_b"])[0] == 1


def test_four_flakes_fail_the_gate_without_another_run() -> None:
    runs = Runs(1)
    code, said = judged(runs, ["a", "b", "c", "d"])

    assert code == 1
    assert len(runs.arguments) == 1
    assert "4 tests needed a second chance" in said


@pytest.mark.parametrize("code", [2, 3, 4])
def test_run_that_did_not_come_to_its_end_fails_the_gate(code: int) -> None:
    assert judged(Runs(code), [])[0] == code


@pytest.mark.parametrize(
    ("make_code", "written", "code"),
    [(0, 0, 0), (2, 1, 1), (2, 3, 3), (2, None, 2), (2, 0, 2)],
    ids=["passed", "failed", "broke off", "never ended", "make failed"],
)
def test_run_is_judged_by_what_pytest_wrote_down_and_not_by_what_make_returns(make_code: int, written: int | None, code: int) -> None:
    assert gate.pytest_code(make_code, written) == code
