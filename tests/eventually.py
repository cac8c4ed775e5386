"""Waiting for what happens by itself, soon."""

import time

import trio


async def eventually(is_so, seconds=20):
    """Wait until `is_so()` is, and fail if it isn't in time."""
    with trio.fail_after(seconds):
        while not is_so():  # noqa: ASYNC110 - what is waited for tells nobody
            await trio.sleep(0.001)


def within(seconds, is_so):
    """As `eventually`, for tests without trio."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not so within {seconds} seconds"
        time.sleep(0.001)
