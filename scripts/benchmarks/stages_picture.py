"""Draws a run's stages as an SVG, each stage as a bar from its start to its end."""

from __future__ import annotations

from html import escape

WIDTH_PX, LABEL_PX, NUMBER_PX, MARGIN_PX = 760, 160, 70, 14
ROW_PX, BAR_PX, TEXT_PX = 26, 14, 12
TICKS_MAX = 8
TICK_STEPS_MS = (100, 200, 250, 500, 1000, 2000, 5000, 10000)
BLUE, GREEN, GREY, DARK, LINE = "#3b6fd8", "#0f9d7a", "#6a7380", "#222b36", "#e3e6ea"

# Each stage, its label, and the stage after which it begins. Times are milliseconds since the end
# of the preflight checks.
STAGES = (
    ("supervisord", "supervisord", ""),
    ("xvfb", "Xvfb", "supervisord"),
    ("websockify", "stream server", "supervisord"),
    ("window_manager", "window manager", "xvfb"),
    ("x11vnc", "x11vnc", "xvfb"),
    ("stream_ready", "viewers can connect", ""),
    ("task_ready", "browser and page", ""),
    ("task", "the task", "start"),
    ("viewers_told", "viewers notified", "task"),
    ("task_stopped", "Chromium closed", "viewers_told"),
    ("display_stopped", "display stopped", "task_stopped"),
)


def draw(stages_ms: dict[str, int]) -> str:
    """The SVG of one run; the background is white, to be readable in a dark theme as well."""
    shown = [stage for stage in STAGES if stage[0] in stages_ms]
    end_ms = max(1, *stages_ms.values())
    scale = (WIDTH_PX - LABEL_PX - NUMBER_PX) / end_ms
    bottom = MARGIN_PX + ROW_PX * len(shown)
    height = bottom + ROW_PX + MARGIN_PX // 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{height}"',
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH_PX}" height="{height}" rx="8" fill="#fff"/>',
    ]
    for at_ms in range(0, end_ms + 1, _tick_ms(end_ms)):
        x = LABEL_PX + at_ms * scale
        parts += [
            f'<path d="M{x:.0f} {MARGIN_PX // 2}V{bottom}" stroke="{LINE}"/>',
            _text(x, bottom + ROW_PX - 6, f"{at_ms} ms", "middle", GREY),
        ]
    for row, (name, label, after) in enumerate(shown):
        began_ms = min(stages_ms.get(after, 0), stages_ms[name])
        parts += _row(MARGIN_PX + row * ROW_PX, label, (began_ms, stages_ms[name]), scale)
    return "\n".join([*parts, "</svg>", ""])


def _tick_ms(end_ms: int) -> int:
    return next((step for step in TICK_STEPS_MS if end_ms / step <= TICKS_MAX), TICK_STEPS_MS[-1])


def _row(y: int, label: str, ends_ms: tuple[int, int], scale: float) -> list[str]:
    began_ms, ended_ms = ends_ms
    x = LABEL_PX + began_ms * scale
    width = max(2.0, (ended_ms - began_ms) * scale)
    fill = GREEN if label == "the task" else BLUE
    return [
        _text(LABEL_PX - 10, y + TEXT_PX, label, "end", DARK),
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR_PX}" rx="3" fill="{fill}"/>',
        _text(x + width + 6, y + TEXT_PX, str(ended_ms), "start", GREY),
    ]


def _text(x: float, y: float, text: str, anchor: str, fill: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.0f}" text-anchor="{anchor}" fill="{fill}">{escape(text)}</text>'
    )
