"""What systemd hands to a service."""

from pathlib import Path


def handed(pid):
    """How many descriptors a service of this number was started with."""
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(int(line.removeprefix(b"LISTEN_FDS=")) for line in environment if line.startswith(b"LISTEN_FDS="))
