"""How a benchmark says what it measured: one JSON object per line."""

import json


def report(name: str, value: float, unit: str, baseline: float | None = None) -> None:
    """Print one measurement; `ratio` is value over baseline, both measured in this run."""
    line: dict[str, object] = {"name": name, "value": round(value, 3), "unit": unit}
    if baseline:
        line |= {"baseline": round(baseline, 3), "ratio": round(value / baseline, 2)}
    print(json.dumps(line), flush=True)
