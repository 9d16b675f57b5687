"""Drawing primitives of the report's charts, in SVG user units; a template makes them SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Line:
    """A polyline; ``style`` is a CSS class."""

    points: str
    style: str


@dataclass(frozen=True)
class Mark:
    """A system's symbol, with its value as a tooltip."""

    x: float
    y: float
    shape: str
    style: str
    tooltip: str


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    style: str


@dataclass(frozen=True)
class Text:
    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    style: str = "tick"


@dataclass
class Chart:
    """One figure: what is drawn, and the same figures as a table for those who cannot see it."""

    title: str
    caption: str
    width: float
    height: float
    columns: list[str]
    rows: list[list[str]]
    bars: list[Bar] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)

    def rule(self, x1: float, y1: float, x2: float, y2: float, style: str = "grid") -> None:
        """A straight line."""
        self.lines.append(Line(path([(x1, y1), (x2, y2)]), style))


@dataclass(frozen=True)
class Scale:
    """Maps a value range onto a range of SVG units; ``log`` for a logarithmic axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 2)


def path(points: Sequence[tuple[float, float]]) -> str:
    """Points as the value of a polyline's ``points``."""
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values that span ``low..high``, both ends covered; steps of 1, 2 or 5 times 10^n."""
    span = high - low
    if not span > 0:
        span = abs(high) or 1.0
        low, high = low - span / 2, high + span / 2
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def tick_labels(ticks: Sequence[float], signed: bool = False) -> list[str]:
    """Labels with as many decimals as the step needs, and a true minus sign."""
    step = min((b - a for a, b in pairwise(ticks)), default=1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    sign = "+" if signed else ""
    return [
        (f"{tick:{sign if tick else ''}.{decimals}f}").replace("-", "\N{MINUS SIGN}")
        for tick in ticks
    ]


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions moved apart to at least ``gap``, in the same order, within ``low..high``.

    Labels at the ends of lines that nearly meet would otherwise lie on each other.
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    placed: list[float] = []
    for i in order:
        placed.append(max(positions[i], placed[-1] + gap if placed else low))
    limit = high
    for number in reversed(range(len(placed))):
        placed[number] = min(placed[number], limit)
        limit = placed[number] - gap
    spread_out = [0.0] * len(positions)
    for i, position in zip(order, placed, strict=True):
        spread_out[i] = round(position, 2)
    return spread_out
