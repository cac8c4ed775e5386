"""Varlink without I/O: framing, messages, and the service that describes itself. Knows nothing of luod."""
