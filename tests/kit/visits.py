"""An open-loop client of the ready shop (deploy/compose): `python visits.py URL RATE`, until its standard input ends.

Every second visit is a POST, which makes an order. A visit is well where web has had both of its answers; web itself
always says 200. It prints one JSON object: how many visits went out, and what the others saw, with when (time.time()).
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request

PATIENCE = 20.0  # seconds


def visit(url: str, method: str) -> str:
    """What was wrong with it; empty for nothing."""
    try:
        request = urllib.request.Request(url, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            text = answer.read().decode()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    wanted = "orders: 201 order " if method == "POST" else "orders: 200 "
    return "" if text.startswith(wanted) and "\ncatalog: 200 " in text else f"{method}: {text.strip()}"


def main(url: str, rate: float) -> None:
    over = threading.Event()

    def until_told() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=until_told, daemon=True).start()
    begun = time.monotonic()
    visits: list[threading.Thread] = []
    failed: list[tuple[float, str]] = []

    def one(number: int) -> None:
        at = time.time()
        wrong = visit(url, "POST" if number % 2 else "GET")
        if wrong:
            failed.append((at, wrong))

    while not over.is_set():
        visits.append(threading.Thread(target=one, args=(len(visits),)))
        visits[-1].start()
        over.wait(max(0.0, begun + len(visits) / rate - time.monotonic()))
    for each in visits:
        each.join()
    print(json.dumps({"sent": len(visits), "failed": failed}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
