"""What a guest's network is, and cards that are there later, or not at all."""

import json
import subprocess
from pathlib import Path

from network import normal

DRIVER = Path("/sys/bus/virtio/drivers/virtio_net")


class Here:
    """The network namespace of the guest itself, as `normal` looks at one."""

    def ip(self, *words):
        return _told("ip", *words)

    def bridge(self, *words):
        return _told("bridge", *words)


def _told(command, *words):
    told = subprocess.run([command, "-json", "-details", *words], check=True, capture_output=True, text=True)
    return json.loads(told.stdout or "[]")


def picture():
    """All that is set."""
    return normal.picture(Here())


def unplug(mac):
    """Take the card of this MAC from its driver: for whoever looks it isn't there. Which one it was."""
    (link,) = (path.parent for path in Path("/sys/class/net").glob("*/address") if path.read_text().strip() == mac)
    device = (link / "device").resolve().name
    (DRIVER / "unbind").write_text(device)
    return device


def plug(device):
    (DRIVER / "bind").write_text(device)
