"""Every method that is served, and who does it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from luod.interface import Method, custody, update
from luod.methods import Answers, Methods, Request
from luod.operations import Operations


@dataclass(frozen=True)
class Served:
    """A method that is served, and what it does; `for_operators` by Operations, else by Methods."""

    method: Method
    call: Callable[[Any, Request], Answers]
    for_operators: bool


def _served(
    name: str, methods: dict[str, Method], calls: dict[str, Callable[[Any, Request], Answers]], *, for_operators: bool
) -> dict[str, Served]:
    return {f"{name}.{member}": Served(methods[member], call, for_operators) for member, call in calls.items()}


SERVED: Final = _served(
    custody.NAME,
    custody.METHODS,
    {
        "Create": Methods.create,
        "Preserve": Methods.preserve,
        "Unpreserve": Methods.unpreserve,
        "Retrieve": Methods.retrieve,
        "Finish": Methods.finish,
        "Discard": Methods.discard,
        "Claim": Methods.claim,
        "List": Methods.list_sessions,
        "Ready": Methods.ready,
        "Veto": Methods.veto,
    },
    for_operators=False,
) | _served(
    update.NAME,
    update.METHODS,
    {
        "Status": Operations.status,
        "Preflight": Operations.preflight,
        "LoadKernel": Operations.load_kernel,
        "UnloadKernel": Operations.unload_kernel,
        "Abort": Operations.abort,
        "Timeline": Operations.timeline,
        "Manifest": Operations.manifest,
        "StartAfresh": Operations.start_afresh,
    },
    for_operators=True,
)
"""Every method that answers at once."""

WATCH: Final = f"{custody.NAME}.Watch"
START: Final = f"{update.NAME}.Start"
FOLLOW: Final = f"{update.NAME}.Follow"
STREAMS: Final = (WATCH, START, FOLLOW)
"""Those that go on, which are the conversation's."""

RETRIEVE: Final = f"{custody.NAME}.Retrieve"
"""The method whose replies carry many descriptors."""

LOAD: Final = f"{update.NAME}.LoadKernel"
"""The method that reads files of strangers."""
