"""luoctl load, unload: the next kernel."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import click

from luod.ctl.command import Command, Failed, Options
from luod.ctl.link import luod_at
from luod.ctl.output import facts, print_json, print_line, show, size
from luod.errors import InvalidParameter
from luod.fds import OwnedFd

_file = click.Path(readable=False)

_GIVEN: Final = {
    "commandLine": "the command line",
    "kernelFileDescriptor": "KERNEL",
    "initrdFileDescriptor": "--initrd",
}
"""What luod's parameters are called here."""


@click.command("load", cls=Command)
@click.argument("kernel", type=_file)
@click.option("--initrd", type=_file, metavar="FILE", help="The initrd that it gets.")
@click.option("--cmdline", metavar="TEXT", help="The command line that it gets.")
@click.option("--reuse-cmdline", is_flag=True, help="It gets the command line of the kernel that runs.")
@click.option("--running", type=_file, metavar="FILE", help="The kernel that runs, where luod doesn't find it.")
@click.pass_obj
def load_command(
    options: Options, *, kernel: str, initrd: str | None, cmdline: str | None, reuse_cmdline: bool, running: str | None
) -> None:
    """Load KERNEL for the next live update, in place of one that may be loaded.

    luoctl opens the files, as you may read them. luod keeps what is in them, and puts luod.from= behind the command
    line, so that the next luod knows whom to expect something from. With --json: the image. For example:

        luoctl load /boot/vmlinuz-7.4 --initrd /boot/initrd-7.4 --cmdline "$LINE"
    """
    if cmdline is None and not reuse_cmdline:
        raise click.UsageError("its command line is missing: --cmdline TEXT, or --reuse-cmdline for that of this one")
    if cmdline is not None and reuse_cmdline:
        raise click.UsageError("--cmdline and --reuse-cmdline exclude each other")
    with _opened(kernel, initrd, running) as (kernel_fd, initrd_fd, running_fd):
        sizes = [None if fd is None else os.fstat(fd.fileno()).st_size for fd in (kernel_fd, initrd_fd)]
        assert kernel_fd is not None
        with luod_at(options) as luod:
            try:
                image = luod.load_kernel(kernel_fd, initrd_fd, cmdline, reuse=reuse_cmdline, running_fd=running_fd)
            except InvalidParameter as error:
                called = running if error.parameter == "runningFileDescriptor" else _GIVEN.get(error.parameter)
                if called is None:
                    raise
                raise Failed(f"{called}: {error.reason}") from None
    if options.json:
        print_json(image)
        return
    show(
        facts(
            {
                "Loaded": image.get("release") or kernel,
                "Kind": kind(image),
                "Size": size(sizes[0]),
                "Initrd": None if initrd is None else size(sizes[1]),
                "Command line": image.get("commandLine"),
            }
        )
    )


@click.command("unload", cls=Command)
@click.pass_obj
def unload_command(options: Options) -> None:
    """Take the next kernel back, if one is loaded. With --json: {}."""
    with luod_at(options) as luod:
        luod.unload_kernel()
    if options.json:
        print_json({})
    else:
        print_line("no kernel is loaded")


def kind(image: Mapping[str, Any]) -> str | None:
    """What an image is: `bzImage for x86_64, packed with xz`."""
    if "kind" not in image:
        return None
    architecture, packing = image.get("architecture"), image.get("packing")
    return (
        str(image["kind"])
        + (f" for {architecture}" if architecture else "")
        + (f", packed with {packing}" if packing else "")
    )


@contextmanager
def _opened(*paths: str | None) -> Iterator[list[OwnedFd | None]]:
    """Open these files, for the `with` block. Raises Failed."""
    with ExitStack() as opened:
        yield [None if path is None else opened.enter_context(_open(path)) for path in paths]


def _open(path: str) -> OwnedFd:
    try:
        fd = OwnedFd(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # what isn't a file isn't waited for
    except OSError as error:
        hint = "; try it as root" if isinstance(error, PermissionError) and os.geteuid() else ""
        raise Failed(f"can't read {path}: {error.strerror}{hint}") from None
    mode = os.fstat(fd.fileno()).st_mode
    if not stat.S_ISREG(mode):
        fd.close()
        raise Failed(f"can't load {path}: it is {'a directory' if stat.S_ISDIR(mode) else 'not a file'}")
    return fd
