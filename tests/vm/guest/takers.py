"""Owners in the guest who take part in live updates, and what they answer."""

import os

from luod.client import connect
from vm.guest.clients import memory


def take_part(session, answer="ready", stage=None):
    """Have a session with a file, take part in live updates, and say what comes. `answer`: ready, veto or none."""
    with connect() as luod:
        if luod.find(session) is None:
            luod.create(session, labels={} if stage is None else {"stage": stage})
            with memory(os.urandom(4096)) as fd:
                luod.preserve(session, fd, token=0)
        with luod.watch([session], participate=True) as events:
            for event in events:
                print(event.event, event.reason or "", flush=True)
                if event.event == "prepare" and answer == "ready":
                    luod.ready(event)
                elif event.event == "prepare" and answer == "veto":
                    luod.veto(event, "a migration is going on")
