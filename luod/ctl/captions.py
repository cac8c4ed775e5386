"""What is said of a live update's timeline, and how much of it is shown, wherever it is drawn."""

from typing import Final

from luod.ctl.output import moment
from luod.timeline import Timeline, duration

_BEFORE: Final = 0.4
"""How much of the picture may be of what came before the blackout, for as long as the blackout is 1."""

SINCE: Final = {
    "frozen": "the first owner was paused",
    "sealed": "everything was sealed",
    "leaving": "PID 1 began to stop services",
    "last": "the old kernel showed its last sign of life",
}
"""When the blackout begins, in words."""


def heading(told: Timeline) -> str:
    """Which live update it is, and what became of it."""
    by = f" {told.via}," if told.via else ""
    end = "" if told.left is not None else ": under way" if told.aborted is None else ": aborted"
    return f"Live update to generation {told.generation},{by} {moment(told.start).partition(' (')[0]}{end}"


def summary(told: Timeline) -> list[str]:
    """How long the blackout was, and what most of it was; or why there was none."""
    if told.aborted is not None:
        return [f"Aborted: {told.aborted}" if told.aborted else "Aborted."]
    if told.blackout is None:
        return []
    dark = told.blackout
    until = f"{dark.who} had its first descriptor" if dark.who else "luod served; no owner has come yet"
    said = [f"Blackout {duration(dark.usec)}: from when {SINCE[dark.since]} until {until}."]
    most = sorted((part for part in told.parts if part.share >= 1), key=lambda part: -part.share)[:3]
    if most:
        said.append(f"Most of it: {', '.join(f'{part.title} {part.share:.0f} %' for part in most)}.")
    return said


def shown_from(told: Timeline) -> int:
    """When the picture begins: what came before the blackout mustn't make that too small to be seen."""
    if told.blackout is None:
        return told.start
    return max(told.start, told.blackout.start - round(_BEFORE * (told.end - told.blackout.start)))
