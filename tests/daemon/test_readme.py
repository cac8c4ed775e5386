"""What the README shows does what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

from luod import client
from memory import content, memfd
from running import luod_running

README = Path(__file__).parents[2] / "README.md"


def test_the_lines_of_client_code_begin_and_go_on_after_a_live_update(sim, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    made = []

    def make_memory():
        made.append(memfd(b"from the first start"))
        return made[-1]

    for generation in range(3):
        with luod_running(sim.path, tmp_path / "run") as path:
            monkeypatch.setenv("LUOD_SOCKET", path)
            scope = {"make_memory": make_memory}
            exec(code, scope)
            with scope["memory"] as memory:
                assert content(memory) == b"from the first start"
            with client.connect() as luod:
                assert luod.find("ram").generation == generation
                if generation:
                    luod.finish("ram", rearm=True)
            sim.kexec()
    assert len(made) == 1


def test_the_commands_without_the_kernel_are_a_live_update_from_beginning_to_end(tmp_path):
    shown = re.search(r"## Without the kernel\n.*?```sh\n(.*?)\n\n(.*?)\n([^\n]*)\n```", README.read_text(), re.DOTALL)
    begin, update, end = (commands.replace("/tmp", str(tmp_path)) for commands in shown.groups())
    given_up = f"trap '{end.partition('#')[0].strip()}; exit 1' TERM"
    script = f"set -m\n{given_up}\n{begin}\n{until('Generation  0')}\n{update}\n{until('Generation  1')}\n{end}\nwait"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["timeout", "100", "bash", "-c", script], stderr=subprocess.PIPE, text=True, env=os.environ | {"PATH": path}
    )
    assert re.search(r"luod supervise: letting go of \d+ descriptors\n", ran.stderr)


def until(said):
    return f"until luoctl status | grep '{said}'; do :; done"
