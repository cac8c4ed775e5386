"""A network set up again as it was: look, plan, do the steps, and again, until nothing changes any more.

What is there and isn't wanted is left alone, and a link that is there is never deleted.
"""

import errno
import select
import socket
import time
from collections.abc import Hashable, Iterator, Sequence
from typing import Final, Self

from pyroute2 import IPRoute

from luod.network.abi import RTMGRP_LINK
from luod.network.changing import Changer, Refused
from luod.network.model import Link, Snapshot
from luod.network.plan import plan
from luod.network.plan.links import identity
from luod.network.reading import everything, look
from luod.network.relations import key, link_of, needs
from luod.network.report import Report, Trouble
from luod.network.steps import Action, Phase, Plan, Step, by_thing, changes_of
from luod.network.words import said, said_of

ROUNDS: Final = 12
"""How often at most, where something undoes what is done."""
_ANY_LENGTH: Final = 1
_OF_PORTS: Final = frozenset({Phase.JOIN, Phase.PORT, Phase.VLANS})
_FORBIDDEN: Final = frozenset({errno.EPERM, errno.EACCES})


def apply(wanted: Snapshot, *, wait: float, leave: bool) -> Report:
    """Set up what is wanted, in the network namespace of this thread. A physical link that isn't there is waited for,
    for `wait` seconds. `leave`: what is there already and differs is left as it is.

    Raises OSError where the network can't be looked at.
    """
    began, deadline = time.time(), time.monotonic() + wait
    with Arrivals() as arrivals, IPRoute(ext_ack=True) as ip:
        work = _Work(ip, wanted, leave=leave)
        work.go_on()
        left = wait
        while work.plan.awaited and not work.is_forbidden and left > 0:
            left = deadline - time.monotonic()  # where that is over: has something come in the meantime?
            if not arrivals.wait(left):
                break
            if work.look_again():
                work.go_on()
    return Report(
        taken=wanted.taken,
        applied=began,
        seconds=time.time() - began,
        done=max(0, work.plan.equal - work.first.equal),
        equal=work.first.equal,
        failed=tuple(work.failed(wait)),
        left=tuple(work.left()),
    )


def compare(wanted: Snapshot) -> Plan:
    """What `apply` would do first. Raises OSError as it does."""
    return plan(wanted, everything(), time.time())


class Arrivals:
    """Tells of links that come, from when it is made on: of more than that, for whoever looks too often misses none."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_LINK))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def wait(self, seconds: float) -> bool:
        """Whether something has happened since the last time, before they are over."""
        if not select.select([self._socket], [], [], max(0.0, seconds))[0]:
            return False
        while True:
            try:
                self._socket.recv(_ANY_LENGTH, socket.MSG_TRUNC)
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more than it could hold
                    raise


class _Work:
    """`first` is the plan that it began with, `plan` the last one."""

    def __init__(self, ip: IPRoute, wanted: Snapshot, *, leave: bool) -> None:
        self._ip = ip
        self._wanted = wanted
        self._seen = look(ip)
        self.first = self.plan = self._planned()
        self._differed = _differing(self.first, self._seen.snapshot) if leave else frozenset()
        joining = (step.thing for step in self.first.steps if step.phase is Phase.JOIN)
        self._apart = {link_of(thing) for thing in joining if key(thing) in self._differed}
        """The ports that stay where they are, though they were another's."""
        self._masters = {link.name: link.master for link in wanted.links}
        self._refused: dict[Hashable, Refused] = {}
        self._made: set[Hashable] = set()
        self._done = 0

    def _planned(self) -> Plan:
        return plan(self._wanted, self._seen.snapshot, time.time())

    def go_on(self) -> None:
        """Until nothing changes any more."""
        for _ in range(ROUNDS):
            if not self.plan.steps:
                return
            self._round()
            if not self.look_again():
                return

    def look_again(self) -> bool:
        """Whether there is something else to be done than before."""
        before = self.plan.steps
        self._seen = look(self._ip)
        self.plan = self._planned()
        return self.plan.steps != before

    def _round(self) -> None:
        """All steps; but behind links that are made, it takes another look. Not where somebody undoes that, each time:
        all the rest would never come to its turn.
        """
        numbers = {name: self._seen.numbers[there] for name, there in self.plan.names.items()}
        changer = Changer(self._ip, self._wanted, numbers)
        self._refused.clear()
        missing: set[str] = set()
        made = 0
        for step in self.plan.steps:
            if self._is_left(step):
                continue
            if made and step.phase > Phase.MAKE:
                return
            try:
                if lacks := next((name for name in self._needs(step) if name in missing), None):
                    raise Refused(f"needs {lacks}")
                changer.do(step)
            except Refused as refused:
                self._refused[key(step.thing)] = refused
                if isinstance(step.thing, Link) and step.action is Action.ADD:
                    missing.add(step.thing.name)
            else:
                self._done += 1
                if step.phase <= Phase.MAKE and (step.phase, key(step.thing)) not in self._made:
                    self._made.add((step.phase, key(step.thing)))
                    made += 1

    def _needs(self, step: Step) -> list[str]:
        """The links without which it can't be done."""
        master = self._masters.get(link_of(step.thing) or "") if step.phase in _OF_PORTS else None
        return needs(step.thing) + ([master] if master is not None else [])

    def _is_left(self, step: Step) -> bool:
        if step.phase is Phase.VLANS and link_of(step.thing) in self._apart:
            return True
        return step.action is not Action.ADD and key(step.thing) in self._differed

    @property
    def is_forbidden(self) -> bool:
        """Whether nothing at all was allowed."""
        codes = {refused.code for refused in self._refused.values()} - {0}
        return not self._done and bool(codes) and codes <= _FORBIDDEN

    def failed(self, waited: float) -> Iterator[Trouble]:
        if self.is_forbidden:
            yield Trouble(what="the network", reason="nobody may set it up without CAP_NET_ADMIN")
            return
        for thing, why in self.plan.impossible:
            if waited and isinstance(thing, Link) and thing in self.plan.awaited:
                why = f"no link with {identity(thing)} has come for {waited:g} s"
            yield Trouble(what=said(thing), reason=why)
        for of_one in self._remaining(left=False):
            refused = self._refused.get(key(of_one[0].thing))
            yield Trouble(what=said(of_one[0].thing), reason=str(refused) if refused else _unmoved(of_one))

    def left(self) -> Iterator[Trouble]:
        for of_one in self._remaining(left=True):
            yield Trouble(what=said(of_one[0].thing), reason=_unmoved(of_one))

    def _remaining(self, *, left: bool) -> list[list[Step]]:
        """The steps that weren't done, by what they are of."""
        return by_thing(step for step in self.plan.steps if self._is_left(step) is left)


def _differing(first: Plan, there: Snapshot) -> frozenset[Hashable]:
    """What isn't as it is wanted, of what somebody has set before. A physical link that is down nobody has."""
    bare = {link.name for link in there.links if link.kind == "physical" and not link.up}
    ours = {name for name, there in first.names.items() if there in bare}
    differing = (step for step in first.steps if step.action is not Action.ADD)
    return frozenset(key(step.thing) for step in differing if link_of(step.thing) not in ours)


def _unmoved(steps: Sequence[Step]) -> str:
    """How that differs which they are of."""
    if changes := changes_of(steps):
        return "; ".join(map(said_of, changes))
    return "it is there" if steps[0].action is Action.REMOVE else "it isn't there"
