"""One colour for each task everywhere, from the palette of Okabe and Ito (2008).

It stays distinguishable with every common form of colour blindness, and in grey.
"""

TASK_COLOURS = {"sst": "#0072B2", "para": "#E69F00", "sts": "#009E73"}
SCORE_COLOUR = "#CC79A7"  # the score over all tasks
INK = "#222222"
MUTED = "#6b7280"


def tint(colour: str, share: float) -> str:
    """Return the colour diluted with white; ``share`` 0 is white and 1 the colour itself."""
    mixed = (round(255 + (channel - 255) * share) for channel in _channels(colour))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def ink_on(colour: str) -> str:
    """Return black or white, whichever reads better on the colour (WCAG relative luminance)."""
    red, green, blue = (_linear(channel / 255) for channel in _channels(colour))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return INK if (luminance + 0.05) ** 2 > 1.05 * 0.066 else "#ffffff"


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
