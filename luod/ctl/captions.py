"""What is said of a live update's timeline, and how much of it is shown, wherever it is drawn."""

from typing import Final

from luod.ctl.output import moment
from luod.timeline import Client, Timeline, duration

_BEFORE: Final = 0.4
"""How much of the picture may be of what came before the blackout, for as long as the blackout is 1."""

SINCE: Final = {
    "freeze": "the first owner was paused",
    "frozen": "the owners were paused",
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
        said.append(f"Most of it: {'; '.join(f'{part.title} {part.share:.0f} %' for part in most)}.")
    return said


def shown_from(told: Timeline) -> int:
    """When the picture begins: what came before the blackout mustn't make that too small to be seen."""
    if told.blackout is None:
        return told.start
    return max(told.start, told.blackout.start - round(_BEFORE * (told.end - told.blackout.start)))


def shown_clients(told: Timeline, most: int) -> tuple[list[Client], str]:
    """At most so many of the clients, the last ones to come of all; and what is to be said of the others."""
    clients = list(told.clients)
    if len(clients) <= most:
        return clients, ""
    kept = sorted(clients, key=lambda client: (client.answer in (None, "ready"), -(client.blackout or 0)))[:most]
    others = [client.blackout for client in clients if client not in kept and client.blackout is not None]
    later = f", back after {duration(min(others))} to {duration(max(others))}" if others else ""
    return [client for client in clients if client in kept], f"and {len(clients) - most} more{later}"
