"""Charts as SVG with presentation attributes only (our policy forbids inline style). Each chart has a table beside it on the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 1000.0, 200.0
DASHES = ("", "7 5", "2 4")  # so that lines differ by more than colour
LETTERS = ("a", "b", "c")


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: its name and a value per day."""

    name: str
    values: tuple[float, ...]


def bar(share: float | None, kind: str = "a") -> Markup:
    """Return a bar that fills `share` (0 to 1) of its track; the track is as wide as the table cell."""
    filled = 0.0 if share is None else max(0.0, min(1.0, share)) * 100
    return Markup(
        '<svg class="chart" viewBox="0 0 100 8" preserveAspectRatio="none" height="10" aria-hidden="true">'
        '<rect class="track" width="100" height="8" rx="1"/><rect class="bar-{}" width="{}" height="8" rx="1"/></svg>'
    ).format(kind, f"{filled:.2f}")


def top_of(series: Sequence[Series]) -> int:
    """Return the round number at the top of the axis: 1, 2 or 5 times a power of ten, never below the highest value."""
    highest = max((value for line in series for value in line.values), default=0)
    step = 1
    while True:
        for factor in (1, 2, 5):
            if factor * step >= highest:
                return factor * step
        step *= 10


def lines(series: Sequence[Series]) -> Markup:
    """Return lines over days on one axis from 0 to `top_of`. Names and numbers are around the chart in HTML, where they stay readable."""
    top = top_of(series)
    drawn = Markup("").join(_line(line, number, top) for number, line in enumerate(series[: len(LETTERS)]))
    grid = Markup("").join(
        Markup('<line class="grid" x1="0" x2="{0}" y1="{1}" y2="{1}" vector-effect="non-scaling-stroke"/>').format(f"{WIDTH:g}", f"{y:g}")
        for y in (0.0, HEIGHT / 2, HEIGHT)
    )
    frame = Markup('<svg class="chart lines" viewBox="0 0 {} {}" preserveAspectRatio="none" height="200" aria-hidden="true">{}{}</svg>')
    return frame.format(f"{WIDTH:g}", f"{HEIGHT:g}", grid, drawn)


def _line(line: Series, number: int, top: int) -> Markup:
    step = WIDTH / max(1, len(line.values) - 1)
    points = " ".join(f"{place * step:.1f},{HEIGHT - value / top * HEIGHT:.1f}" for place, value in enumerate(line.values))
    return Markup(
        '<polyline class="line-{}" points="{}" stroke-width="2.5" stroke-dasharray="{}" stroke-linejoin="round" '
        'vector-effect="non-scaling-stroke"/>'
    ).format(LETTERS[number], points, DASHES[number] or "none")


def key(number: int) -> Markup:
    """Return the short line of the legend before a series' name."""
    return Markup(
        '<svg class="chart key" viewBox="0 0 28 8" width="28" height="8" aria-hidden="true">'
        '<line class="line-{}" x1="0" x2="28" y1="4" y2="4" stroke-width="2.5" stroke-dasharray="{}"/></svg>'
    ).format(LETTERS[number], DASHES[number] or "none")
