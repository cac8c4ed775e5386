"""The demo in the guest: `python3 -m vm.guest.demo ROLE` is a client of it that works until SIGTERM."""

import json
import os
import signal
import socket

LUOD = "/run/luod/io.luod"


def ask():
    """What luod says of itself, and of each of its sessions, as Varlink has it.

    Written without luod's client, which takes seconds to import here: in them its clients would wait.
    """
    with socket.socket(socket.AF_UNIX) as luod:
        luod.connect(LUOD)
        (status,) = _replies(luod, {"method": "io.luod.Update.Status"})
        sessions = _replies(luod, {"method": "io.luod.Custody.List", "more": True})
    return {"status": status, "sessions": [reply["session"] for reply in sessions if reply.get("session")]}


def _replies(luod, call):
    luod.sendall(json.dumps(call).encode() + b"\0")
    replies, unread = [], b""
    while not replies or replies[-1].get("continues"):
        while b"\0" not in unread:
            received = luod.recv(1 << 16)
            if not received:
                raise ConnectionError("luod has closed the connection")
            unread += received
        message, _, unread = unread.partition(b"\0")
        replies.append(json.loads(message))
        if "error" in replies[-1]:
            raise RuntimeError(replies[-1]["error"])
    return [reply["parameters"] for reply in replies]


def main():
    """A client ends with its standard input. Here nobody is at it: it is a pipe, and SIGTERM ends that."""
    from luod.demo import clients

    ours, theirs = os.pipe()
    os.dup2(ours, 0)
    signal.signal(signal.SIGTERM, lambda *_: os.close(theirs))
    raise SystemExit(clients.main())


if __name__ == "__main__":
    main()
