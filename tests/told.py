"""Live updates, as a flight recorder tells of them."""

BEGAN = 1_790_000_000_000_000


def told(clients=("vm",), *, scale=1.0, via="direct", prepare=0.4, ahead=430_000, rtc=True, finished=True):
    """The events of one whose blackout takes about `scale` seconds, after `prepare` seconds of preparation.

    The new kernel's clock is `ahead` of the old one's, in microseconds; with `rtc` that can be told.
    """
    events = []

    def note(what, seconds, who=None, **details):
        at = BEGAN + round(seconds * 1e6) + (ahead if what in NEW or details.get("leaving") is False else 0)
        events.append({"usec": at, "what": what, **({} if who is None else {"who": who}), **details})

    def at(part):
        return prepare + part * scale

    note("prepare", 0, via=via, update=1)
    if rtc:
        note("clock", 0.001, leaving=True, offsetUSec=1000, withinUSec=400)
        note("clock", at(1.05), leaving=False, offsetUSec=1000 + ahead, withinUSec=600)
    for number, who in enumerate(clients):
        note("ready", prepare * (0.2 + 0.6 * (number + 1) / len(clients)), who)
    note("carried", prepare * 0.85)
    note("loaded", prepare * 0.9)
    if via == "direct":
        units = ", ".join(f"unit{number}.service" for number, _ in enumerate(clients))
        note("freeze", at(0), units)
        note("frozen", at(0.02), units)
        note("sealed", at(0.025))
        note("leaving", at(0.03), via=via)
    else:
        note("leaving", at(0))
        note("stopping", at(0.001))
        note("stopped", at(0.2))
        note("kexec", at(0.27))
    note("last", at(0.08) if via == "direct" else at(0.1))
    gone = 0.08 if via == "direct" else 0.27
    note("kernel", at(gone + 0.1))
    note("pid1", at(gone + 0.32))
    note("begin", at(gone + 0.45))
    note("serving", at(gone + 0.6))
    for number, who in enumerate(clients):
        came = gone + 0.62 + 0.1 * (number + 1) / len(clients)
        note("first", at(came), who)
        if finished:
            note("finished", at(came + 0.05), who)
    return sorted(events, key=lambda event: event["usec"])


NEW = frozenset({"kernel", "pid1", "initrd", "userspace", "begin", "serving", "first", "finished", "restored"})
