"""What luoctl can do: the table of its commands, and the help that shows it.

Nothing is imported here but luod's version: the help is printed without click, which takes three times as long to
import as Python takes to start.
"""

from luod import __version__

COMMANDS: dict[str, tuple[str, str, str, str]] = {
    "list": ("Sessions", "sessions", "", "List sessions: yours, or --all"),
    "show": ("Sessions", "sessions", "SESSION", "Show a session and its files"),
    "create": ("Sessions", "lifecycle", "NAME", "Make a session"),
    "claim": ("Sessions", "lifecycle", "SESSION -- COMMAND...", "Run a command with a delegated session"),
    "finish": ("Sessions", "lifecycle", "SESSION", "End a session that came over, or --rearm it"),
    "discard": ("Sessions", "lifecycle", "SESSION", "Give an outgoing session up, or forget a lost one"),
    "watch": ("Sessions", "watch", "[SESSION]...", "Tell of live updates as they come"),
    "preserve": ("Files", "files", "SESSION [FILE]", "Preserve what is in a file, or memory"),
    "retrieve": ("Files", "files", "SESSION [TOKEN]...", "Get a file back, or run a command with files"),
    "unpreserve": ("Files", "files", "SESSION TOKEN...", "Take files out of an outgoing session"),
    "load": ("Live updates", "kernel", "KERNEL", "Load the next kernel"),
    "unload": ("Live updates", "kernel", "", "Take the next kernel back"),
    "preflight": ("Live updates", "preflight", "", "Check what a live update would meet"),
    "update": ("Live updates", "update", "", "Do a live update"),
    "abort": ("Live updates", "update", "[REASON]", "Bring everything back, before it is under way"),
    "wait-restored": ("Live updates", "restored", "", "Wait until all owners have their own back"),
    "timeline": ("Live updates", "timeline", "", "Show where the time of a live update went"),
    "start-afresh": ("Live updates", "restored", "", "Accept that what can't come back is lost"),
    "network": ("Live updates", "network", "snapshot|show|apply", "Hand the host's network over"),
    "status": ("luod", "status", "", "Show how luod and its kernel are doing"),
    "manifest": ("luod", "manifest", "show|verify [FILE]", "Show or check what a live update carries over"),
    "config": ("luod", "config", "cat|check [FILE]", "Show or check luod's configuration"),
    "install-units": ("luod", "units", "", "Put luod's systemd units in place"),
    "introspect": ("luod", "varlink", "[INTERFACE]", "Describe luod and its interfaces"),
    "call": ("luod", "varlink", "METHOD [JSON]", "Call a Varlink method"),
    "completion": ("luod", "completion", "SHELL", "Print what lets bash, zsh or fish complete words"),
}
"""Of each command: its section of the help, its module in this package, its arguments, and what it does."""

VERSION = f"luoctl {__version__}"

_HEAD = """\
Usage: luoctl [OPTIONS] COMMAND [ARGUMENTS]

Look after what luod holds: memory that stays while the kernel is replaced.
"""

_FOOT = """\

Options, before a command or after it:
  --json                       Print JSON, with the interface's names
  --socket PATH                Where luod listens
                               [default: $LUOD_SOCKET, else /run/luod/io.luod]
  -h, --help                   Show this, or a command's own help, and exit
  --version                    Show the version and exit

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 luod is not running,
4 this boot can't give anything back."""


def help_text() -> str:
    """The help of luoctl as a whole, in 80 columns."""
    lines, last = [_HEAD.rstrip()], ""
    for name, (section, _, arguments, what) in COMMANDS.items():
        if section != last:
            lines += ["", f"{section}:"]
        lines.append(f"  {f'{name} {arguments}':27}  {what}")
        last = section
    return "\n".join([*lines, _FOOT])
