"""The demo's two ways: for a person until Ctrl-C, and once without one."""


def run_demo(seconds_per_day: float) -> int:
    return 0


def run_once(seconds_per_day: float | None) -> int:
    return 0
