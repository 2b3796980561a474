"""The benchmarks can be started: each module imports, and asking for one that is not there is refused."""

import importlib

import pytest

from tests.bench.__main__ import PREFIX, names, parse
from tests.bench.report import quantiles


@pytest.mark.parametrize("name", names())
def test_every_bench_imports_and_can_be_run(name: str) -> None:
    module = importlib.import_module(f"tests.bench.{PREFIX}{name}")

    assert callable(module.main)
    assert module.__doc__


def test_all_benches_are_run_when_none_is_named() -> None:
    assert parse([]) == names()
    assert parse(["finding", "wakes"]) == ["finding", "wakes"]


def test_unknown_bench_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["nothing"])

    assert "there is no benchmark nothing" in capsys.readouterr().err


def test_quantiles_are_values_that_were_measured() -> None:
    assert quantiles([3.0, 1.0, 2.0, 4.0], 0.5, 0.99, 0.0) == [2.0, 4.0, 1.0]  # nearest rank
