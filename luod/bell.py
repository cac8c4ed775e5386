"""A bell: rung from any thread, heard in trio by whoever waits for it."""

import trio


class Bell:
    """Rung several times before somebody listens again, it is heard once. `rings` counts what was heard."""

    def __init__(self) -> None:
        self.rings = 0
        self._token = trio.lowlevel.current_trio_token()
        self._rung = trio.Event()

    def ring(self) -> None:
        self._token.run_sync_soon(self._sound, idempotent=True)

    def _sound(self) -> None:
        self.rings += 1
        rung, self._rung = self._rung, trio.Event()
        rung.set()

    async def wait(self, heard: int) -> int:
        """Wait until it was rung more than `heard` times; how often it was."""
        while self.rings == heard:
            await self._rung.wait()
        return self.rings
