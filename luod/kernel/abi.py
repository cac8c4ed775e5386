"""LUO's numbers and structs (include/uapi/linux/liveupdate.h). Nothing here makes a system call."""

import struct
from typing import Final

IOCTL_TYPE: Final = 0xBA


def _io(nr: int) -> int:
    """_IO(0xBA, nr): LUO encodes neither direction nor size, each struct starts with its own size."""
    return IOCTL_TYPE << 8 | nr


CREATE_SESSION: Final = _io(0x00)
RETRIEVE_SESSION: Final = _io(0x01)
PRESERVE_FD: Final = _io(0x40)
RETRIEVE_FD: Final = _io(0x41)
FINISH: Final = _io(0x42)
GET_NAME: Final = _io(0x43)

NAMED: Final = struct.Struct("=Ii64s")
"""create_session and retrieve_session: size, fd (output), name."""

TOKENED: Final = struct.Struct("=IiQ")
"""preserve_fd (fd is input) and retrieve_fd (fd is output): size, fd, token."""

SESSION_FINISH: Final = struct.Struct("=II")
"""size, reserved."""

SESSION_NAME: Final = struct.Struct("=II64s")
"""get_name: size, reserved, name (output)."""
