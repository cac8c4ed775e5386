"""Requests to be interrupted: what each is of, and what is there before it and after it."""

from luod.lifecycle import Mode
from memory import memfd

RAM = {0: b"one", 1: b"two"}
BEFORE = {"ram": RAM, "other": {0: b"x"}}


def kexec(machine):
    machine.next_kernel()
    machine.boot()


def clean(machine):
    """Nothing is left of what was there before."""
    machine.next_kernel(carry=False)
    machine.boot()


def set_up(machine, alice):
    """A session with two files, another, a tombstone whose file is `again`."""
    machine.create("ram", b"one", b"two")
    machine.create("other", b"x")
    machine.again = memfd(b"again")
    machine.give("ram", {7: machine.again})
    machine.custodian.unpreserve(alice, "ram", [7])


def come_over(machine, alice):
    """The same two sessions in the next kernel, the other one carried over."""
    for name, files in BEFORE.items():
        machine.create(name, *files.values())
    kexec(machine)
    machine.custodian.carry_over(alice.uid, "other", claimed=False)


def after(changes, before=BEFORE):
    """What is there after a request: what is None is no more."""
    return {name: found for name, found in (before | changes).items() if found is not None}


OUTGOING = {
    "create": (lambda m, a: m.create("new"), {"new": {}}),
    "delegate": (lambda m, a: m.custodian.create(a, "new", Mode.DELEGATED, {}, None)[1].close(), {"new": "WrongMode"}),
    "preserve": (
        lambda m, a: m.preserve("ram", {4: b"four", 5: b"five", 6: b"six"}),
        {"ram": {**RAM, 4: b"four", 5: b"five", 6: b"six"}},
    ),
    "preserve a tombstone's file": (lambda m, a: m.give("ram", {7: m.again}), {"ram": {**RAM, 7: b"again"}}),
    "unpreserve": (lambda m, a: m.custodian.unpreserve(a, "ram", [0]), {"ram": {1: b"two"}}),
    "unpreserve all": (lambda m, a: m.custodian.unpreserve(a, "ram", [0, 1]), {"ram": {}}),
    "retrieve": (lambda m, a: m.contents("ram"), {}),
    "discard": (lambda m, a: m.custodian.discard(a, "ram"), {"ram": None}),
}
"""By their names, and what each changes."""

INCOMING = {
    "retrieve": (lambda m, a: m.contents("ram"), {}),
    "finish": (lambda m, a: m.custodian.finish(a, "ram"), {"ram": None}),
    "rearm": (lambda m, a: m.custodian.rearm(a, "ram"), {}),
    "carry over": (lambda m, a: m.custodian.carry_over(a.uid, "ram", claimed=False), {}),
}
"""The same of those that came over."""
