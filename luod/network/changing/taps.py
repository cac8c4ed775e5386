"""Taps, and tuns: they are made by /dev/net/tun, not by rtnetlink (drivers/net/tun.c)."""

import fcntl
import os
import struct
from typing import Final

from luod.network.abi import (
    IFF_MULTI_QUEUE,
    IFF_NO_PI,
    IFF_TUN_EXCL,
    IFF_VNET_HDR,
    TUNSETGROUP,
    TUNSETIFF,
    TUNSETOWNER,
    TUNSETPERSIST,
)
from luod.network.model import Tun

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
