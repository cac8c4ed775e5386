"""Owners in the guest in a live update: who take part and what they answer, and one who knows nothing of it.

The files of those who take part have the session's name in them, so everybody knows what must come over.
"""

import os
import sys
import time
from itertools import count as counted

from luod.client import connect
from luod.systemd import notify
from vm.guest.clients import memory

COUNTER = "counter"
"""The session of who doesn't take part."""

TICK = 0.02


def take_part(session, answer="ready", stage=None):
    """Have a session with a file, take part in live updates, and say what comes. `answer`: ready, veto or none.

    Who gets ready preserves something more before.
    """
    with connect() as luod:
        if luod.find(session) is None:
            luod.create(session, labels={} if stage is None else {"stage": stage})
            _preserve(luod, session)
        with luod.watch([session], participate=True) as events:
            for event in events:
                print(event.event, event.reason or "", flush=True)
                if event.event == "prepare" and answer == "ready":
                    _preserve(luod, session)
                    luod.ready(event)
                elif event.event == "prepare" and answer == "veto":
                    luod.veto(event, "a migration is going on")


def come_back(sessions, rearm=False):
    """Have these sessions again, say so at once, and finish them. What was in them."""
    found = {}
    with connect() as luod:
        for session in sessions:
            files = luod.retrieve(session)
            found[session] = [os.pread(fd.fileno(), 100, 0).decode() for fd in files.values()]
            for fd in files.values():
                fd.close()
        print("back", flush=True)
        for session in sessions:
            luod.finish(session, rearm=rearm)
    return found


def change(session):
    """Preserve something more in a session, and take it away. luod's phase; how many files there are meanwhile."""
    with connect() as luod:
        phase = luod.status().phase
        token = _preserve(luod, session).token
        files = len(luod.find(session).files)
        luod.unpreserve(session, [token])
    return phase, files


def go(kernel, rearm=()):
    """Be the operator, too: load the next kernel and go there, by luod itself. These sessions are rearmed before."""
    if rearm:
        assert come_back(rearm, rearm=True) == {session: [session] for session in rearm}
    with connect() as luod, open(kernel, "rb") as image:
        luod.load_kernel(image.fileno(), reuse=True)
        with luod.update(via="direct") as steps:
            for progress in steps:
                print(progress.phase, progress.detail or "", flush=True)
        raise AssertionError("the live update is over, and nobody says why")


def count():
    """Count in memory, from where the count was before the live update, and know nothing of any."""
    with connect() as luod, memory(bytes(8)) as fd:
        number = 0
        if luod.find(COUNTER) is not None:
            with luod.retrieve(COUNTER)[0] as came:
                number = int.from_bytes(os.pread(came.fileno(), 8, 0), sys.byteorder)
            luod.finish(COUNTER)
        print("counts from", number, flush=True)
        luod.create(COUNTER)
        luod.preserve(COUNTER, fd, token=0)
        for current in counted(number):
            os.pwrite(fd.fileno(), current.to_bytes(8, sys.byteorder), 0)
            if current == number + 1:
                notify("READY=1")
                print("counting", flush=True)
            time.sleep(TICK)


def _preserve(luod, session):
    with memory(session.encode()) as fd:
        return luod.preserve(session, fd)
