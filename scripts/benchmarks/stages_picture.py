"""The picture of a run's stages: a small SVG, each stage a bar from its start to its end."""

from __future__ import annotations

from html import escape

WIDTH_PX, LABEL_PX, ROW_PX, MARGIN_PX = 760, 170, 26, 14
TICK_MS = 250
BAR_PX = 14
NUMBER_PX = 70

# Each stage with the one behind which it begins; marks are milliseconds from the session's start.
BEGINS_BEHIND = {
    "task_process": "",
    "supervisord": "",
    "xvfb": "supervisord",
    "window_manager": "xvfb",
    "x11vnc": "xvfb",
    "websockify": "supervisord",
    "stream_ready": "xvfb",
    "task_ready": "xvfb",
    "start": "",
    "task": "start",
    "viewers_told": "task",
    "task_stopped": "viewers_told",
    "display_stopped": "task_stopped",
    "cleared_away": "display_stopped",
}


def draw(stages_ms: dict[str, int]) -> str:
    """The SVG of one run; the text is dark grey and the ground white, for both README themes."""
    names = [name for name in BEGINS_BEHIND if name in stages_ms]
    end_ms = max(1, *stages_ms.values())
    scale = (WIDTH_PX - LABEL_PX - NUMBER_PX) / end_ms
    height = 2 * MARGIN_PX + ROW_PX * (len(names) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{height}"',
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH_PX}" height="{height}" rx="8" fill="#fff"/>',
    ]
    for at_ms in range(0, end_ms + 1, TICK_MS):
        x = LABEL_PX + at_ms * scale
        parts.append(
            f'<path d="M{x:.0f} {MARGIN_PX}V{height - MARGIN_PX - ROW_PX + 6}" stroke="#e3e6ea"/>'
            f'<text x="{x:.0f}" y="{height - MARGIN_PX}" fill="#6a7380" '
            f'text-anchor="middle">{at_ms} ms</text>'
        )
    for row, name in enumerate(names):
        began_ms = min(stages_ms.get(BEGINS_BEHIND[name], 0), stages_ms[name])
        parts.append(_row(row, name, (began_ms, stages_ms[name]), scale))
    return "\n".join([*parts, "</svg>", ""])


def _row(row: int, name: str, ends_ms: tuple[int, int], scale: float) -> str:
    began_ms, ended_ms = ends_ms
    y = MARGIN_PX + row * ROW_PX
    x = LABEL_PX + began_ms * scale
    width = max(2.0, (ended_ms - began_ms) * scale)
    fill = "#0f9d7a" if name == "task" else "#3b6fd8"
    return (
        f'<text x="{LABEL_PX - 12}" y="{y + 12}" text-anchor="end" fill="#222b36">'
        f"{escape(name)}</text>"
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR_PX}" rx="3" fill="{fill}"/>'
        f'<text x="{x + width + 6:.1f}" y="{y + 12}" fill="#6a7380">{ended_ms}</text>'
    )
