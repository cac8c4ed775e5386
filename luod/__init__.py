"""luod owns Live Update Orchestrator sessions across kexec and hands descriptors back afterwards."""

__version__ = "0.1.0"
