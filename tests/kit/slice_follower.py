"""Somebody who follows a service's slices in a process of its own, and tells what that cost.

Arguments of `python -m tests.kit.slice_follower`: the API server's URL, the files of token and certificates, how many
endpoints to wait for, and the address by which it knows that the last change has come. Standard output has one JSON
object: seconds until the list was known, the longest time for which nothing else could run, memory, and how often a
list was told.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from typing import Any

import trio

from sidecar.discovery.kubernetes import SliceWatch
from sidecar.discovery.listing import Listing
from sidecar.discovery.sources import FromKubernetes
from tests.kit.memory_use import peak_rss, rss

TICK = 0.001  # seconds


async def follow(api: str, token: str, ca: str, many: int, last: str) -> dict[str, Any]:
    source = FromKubernetes("shop", "orders", "mesh", api, token, ca)
    facts: dict[str, Any] = {"told": 0, "gap": 0.0, "listed": None, "left_out": 0}
    done = trio.Event()
    gc.collect()
    before = rss(os.getpid())
    began = time.monotonic()

    def changed(listing: Listing, _: object) -> None:
        facts["told"] += 1
        entries = listing.entries or ()
        if facts["listed"] is None and len(entries) >= many:
            facts["listed"] = time.monotonic() - began
            print("listed", file=sys.stderr, flush=True)
        if any(each.address.host == last for each in entries):
            facts["left_out"] = listing.left_out
            done.set()

    async def tick() -> None:
        """What else this process has to do: it wants its turn each millisecond."""
        while True:
            then = time.monotonic()
            await trio.sleep(TICK)
            facts["gap"] = max(facts["gap"], time.monotonic() - then - TICK)

    listing = Listing(source, changed, lambda told, _: print(told.error, file=sys.stderr, flush=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        nursery.start_soon(SliceWatch(source, listing).run)
        await done.wait()
        nursery.cancel_scope.cancel()
    gc.collect()
    grown, peak = rss(os.getpid()) - before, peak_rss(os.getpid()) - before
    return {**facts, "seconds": time.monotonic() - began, "grown": grown, "peak": peak}


if __name__ == "__main__":
    url, token_file, ca_file, number, address = sys.argv[1:]
    print(json.dumps(trio.run(follow, url, token_file, ca_file, int(number), address)))
