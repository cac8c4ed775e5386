"""Taps, and tuns: they are made by /dev/net/tun, not by rtnetlink (drivers/net/tun.c)."""

import fcntl
import os
import struct
from typing import Final

from luod.network.model import Tun

TUNSETIFF: Final = 0x400454CA
TUNSETPERSIST: Final = 0x400454CB
TUNSETOWNER: Final = 0x400454CC
TUNSETGROUP: Final = 0x400454CE

IFF_MULTI_QUEUE: Final = 0x0100
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
IFF_TUN_EXCL: Final = 0x8000

DEVICE: Final = "/dev/net/tun"


def make(name: str, tun: Tun) -> None:
    """One that stays, though nobody has it open. Raises OSError: EEXIST where the name is taken."""
    _open(name, tun, IFF_TUN_EXCL)


def own(name: str, tun: Tun) -> None:
    """Set whose it is. Raises OSError: EBUSY where somebody has it open."""
    _open(name, tun, 0)


def _open(name: str, tun: Tun, flags: int) -> None:
    flags |= tun.type
    flags |= 0 if tun.pi else IFF_NO_PI
    flags |= IFF_VNET_HDR if tun.vnet_hdr else 0
    flags |= IFF_MULTI_QUEUE if tun.multi_queue else 0
    fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        if tun.owner is not None:
            fcntl.ioctl(fd, TUNSETOWNER, _as_int(tun.owner))
        if tun.group is not None:
            fcntl.ioctl(fd, TUNSETGROUP, _as_int(tun.group))
        fcntl.ioctl(fd, TUNSETPERSIST, 1)
    finally:
        os.close(fd)


def _as_int(number: int) -> int:
    """As C's int has it, which ioctl takes."""
    return number - (1 << 32) if number >> 31 else number
