"""A brand's colours as CSS: the colours that it chose, checked, and others made from them so that text stays readable. Pure."""

import colorsys
import re
from collections.abc import Mapping
from typing import Any

HEX = re.compile(r"#[0-9a-f]{6}", re.IGNORECASE)
DEFAULT = "#0b6e69"
LIGHT_PAPER, DARK_PAPER = "#ffffff", "#182028"
READABLE = 4.5  # WCAG 2.2, 1.4.3

Colour = tuple[float, float, float]


def stylesheet(tokens: Mapping[str, Any]) -> str:
    """Return the brand's custom properties for light and dark. A value that is not a six-digit hex colour is ignored."""
    brand = _chosen(tokens, "brand") or DEFAULT
    light = {
        "brand": readable_on(brand, LIGHT_PAPER),
        "brand-soft": _chosen(tokens, "brand_soft") or mix(brand, LIGHT_PAPER, 0.11),
    }
    light["brand-ink"] = readable_on(_chosen(tokens, "brand_ink") or mix(brand, "#000000", 0.68), light["brand-soft"], READABLE + 0.5)
    light["on-brand"] = "#ffffff"
    dark = {"brand": lightened(brand, DARK_PAPER, 7), "brand-soft": shaded(brand, 0.14)}
    dark["brand-ink"] = readable_on(mix(dark["brand"], "#ffffff", 0.45), dark["brand-soft"], 7)
    dark["on-brand"] = shaded(brand, 0.07)
    return f":root{{{_properties(light)}}}\n@media (prefers-color-scheme:dark){{:root{{{_properties(dark)}}}}}\n"


def contrast(one: str, other: str) -> float:
    """Return the WCAG contrast ratio of two colours, 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def readable_on(colour: str, paper: str, least: float = READABLE) -> str:
    """Return `colour`, moved towards black or white by the least step that reaches the contrast `least` on `paper`."""
    towards = "#000000" if _luminance(paper) > 0.18 else "#ffffff"
    for step in range(21):
        candidate = mix(towards, colour, step / 20)
        if contrast(candidate, paper) >= least:
            return candidate
    return towards


def lightened(colour: str, paper: str, least: float) -> str:
    """Return the same hue, lightened no further than the contrast `least` on a dark `paper` needs, so that it stays the brand's colour."""
    hue, light, full = colorsys.rgb_to_hls(*(part / 255 for part in _parts(colour)))
    for step in range(round(light * 100), 101):
        candidate = _hex(colorsys.hls_to_rgb(hue, step / 100, min(full, 0.5)))
        if contrast(candidate, paper) >= least:
            return candidate
    return "#ffffff"


def shaded(colour: str, light: float) -> str:
    """Return the same hue at the lightness `light` (0 to 1)."""
    hue, _, full = colorsys.rgb_to_hls(*(part / 255 for part in _parts(colour)))
    return _hex(colorsys.hls_to_rgb(hue, light, min(full, 0.5)))


def _hex(colour: Colour) -> str:
    return "#" + "".join(f"{round(part * 255):02x}" for part in colour)


def mix(colour: str, other: str, share: float) -> str:
    """Return `share` of `colour` and the rest of `other`."""
    mixed = [round(a * share + b * (1 - share)) for a, b in zip(_parts(colour), _parts(other), strict=True)]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _chosen(tokens: Mapping[str, Any], name: str) -> str | None:
    value = tokens.get(name)
    return value.lower() if isinstance(value, str) and HEX.fullmatch(value) else None


def _properties(values: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in values.items())


def _parts(colour: str) -> list[int]:
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


def _luminance(colour: str) -> float:
    parts = [part / 255 for part in _parts(colour)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
