"""Icons of the menu and buttons: 24 by 24, in the text's colour, and hidden from screen readers since each has a text beside it."""

from markupsafe import Markup

# fmt: off
PATHS = {
    "sun": '<circle cx="12" cy="12" r="4"/><path d="M12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6 7 7M17 17l1.4 1.4M5.6 18.4 7 17M17 7l1.4-1.4"/>',
    "path": '<circle cx="6" cy="5" r="2.5"/><circle cx="18" cy="19" r="2.5"/>'
    '<path d="M8.5 5H15a3.5 3.5 0 0 1 0 7H9a3.5 3.5 0 0 0 0 7h6.5"/>',
    "check": '<circle cx="12" cy="12" r="9"/><path d="m8 12.5 2.7 2.7L16 9.5"/>',
    "flag": '<path d="M5 21V4M5 4.5c4-2.5 8 2.5 14 0v9.5c-6 2.5-10-2.5-14 0"/>',
    "people": '<circle cx="9" cy="8" r="3.5"/><path d="M2.5 20c.6-4 3-6 6.5-6s5.9 2 6.5 6"/>'
    '<path d="M16 5a3.5 3.5 0 0 1 0 6.5M18 14.5c2 .9 3.2 2.7 3.5 5.5"/>',
    "group": '<circle cx="12" cy="12" r="9"/><circle cx="12" cy="12" r="4.5"/><circle cx="12" cy="12" r=".8"/>',
    "bars": '<path d="M5 20v-7M12 20V5M19 20v-10"/>',
    "mail": '<rect x="3" y="5" width="18" height="14" rx="2.5"/><path d="m4 7 8 6 8-6"/>',
    "menu": '<path d="M4 7h16M4 12h16M4 17h16"/>',
    "search": '<circle cx="11" cy="11" r="6.5"/><path d="m16 16 4.5 4.5"/>',
    "left": '<path d="m14.5 6-6 6 6 6"/>',
    "right": '<path d="m9.5 6 6 6-6 6"/>',
    "phone": '<path d="M6 3h3l1.5 4.5L8.3 9.3a12 12 0 0 0 6.4 6.4l1.8-2.2L21 15v3a3 3 0 0 1-3.3 3A17 17 0 0 1 3 6.3 3 3 0 0 1 6 3z"/>',
    "clock": '<circle cx="12" cy="12" r="9"/><path d="M12 7v5.3l3.3 2"/>',
    "pulse": '<path d="M3 12h4l2.5-7 4.5 14 2.5-7H21"/>',
    "split": '<path d="M12 3v6M12 9c0 5-6 4-6 12M12 9c0 5 6 4 6 12"/>',
    "key": '<circle cx="8" cy="15" r="4"/><path d="m11 12 8-8M16 7l3 3M14 9l2 2"/>',
    "out": '<path d="M14 4h4a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2h-4M10 8l-4 4 4 4M6 12h9"/>',
    "globe": '<circle cx="12" cy="12" r="9"/><path d="M3 12h18M12 3c5 5 5 13 0 18M12 3c-5 5-5 13 0 18"/>',
}


def icon(name: str, size: int = 20) -> Markup:
    """Return the icon as inline SVG."""
    return Markup(
        '<svg class="icon" width="{0}" height="{0}" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.8" '
        'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">{1}</svg>'
    ).format(size, Markup(PATHS[name]))  # noqa: S704  (constants above)
