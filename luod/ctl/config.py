"""luoctl config: which files luod's configuration comes from, and what is wrong with them."""

from pathlib import Path

import click

from luod.ctl.command import Failed, Group, Options
from luod.ctl.output import count, print_json, print_line, visible

root_option = click.option(
    "--root", type=click.Path(path_type=Path), default="/", help="Of the system whose files they are."
)


@click.group("config", cls=Group)
def config_command() -> None:
    """Show or check luod's configuration.

    luod.toml is read from the first of /etc/luod, /run/luod and /usr/lib/luod that has it; then the drop-ins,
    luod.toml.d/*.toml in any of them, by their names. `systemctl reload luod` lets luod read it again.
    """


@config_command.command("cat")
@root_option
@click.pass_obj
def cat_config(options: Options, root: Path) -> None:
    """Print the files that count, in the order in which they are read. With --json: an array of {"path", "content"}."""
    from luod.config import ConfigError, files

    try:
        found = [(path, path.read_text(errors="replace")) for path in files(root)]
    except ConfigError as error:
        raise Failed(str(error)) from None
    except OSError as error:
        raise Failed(f"{error.filename}: {error.strerror}") from None
    if options.json:
        print_json([{"path": str(path), "content": content} for path, content in found])
        return
    for number, (path, content) in enumerate(found):
        if number:
            print_line("")
        for line in (f"# {path}", *content.splitlines()):
            print_line(line.expandtabs())
    if not found:
        print_line("# no file: everything is as luod has it by default")


@config_command.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@root_option
@click.pass_obj
def check_config(options: Options, file: Path | None, root: Path) -> None:
    """Say whether luod can use its configuration, or FILE alone.

    With --json: {"ok", "problems"}, each of those with "file", "line", "key" and "reason".
    """
    from luod.config import Config, ConfigError, files

    problems = []
    try:
        Config.load(file, root)
    except ConfigError as error:
        problems = error.problems
    if options.json:
        shown = [{"file": p.file, "line": p.line, "key": p.key, "reason": p.reason} for p in problems]
        print_json({"ok": not problems, "problems": shown})
    elif not problems:
        many = [file] if file else files(root)
        print_line(f"luod can use its configuration: {count(len(many), 'file')}")
    if problems:
        for problem in problems[:-1]:
            click.echo(f"luoctl: {visible(str(problem))}", err=True)
        raise Failed(str(problems[-1]))
