"""The README's lines of client code do what they say."""

import re
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
