"""Whole lists from an API server, page by page, each object made small at once.

A server that is overloaded is asked again after the time that it names, one that fails a few times; a list whose next
page was forgotten is begun anew. What then still fails is a CannotAsk that says what to do.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import quote

import trio

from sidecar.deploy.cluster.access import PROXY_HINT, Access
from sidecar.net.http_client import HttpClient
from sidecar.net.http_message import Answer, AnswerTooLarge, BadHttp
from sidecar.net.https import cause
from sidecar.net.kube_api import CannotAsk, Gone, forgotten, read_page, retry_after, told

T = TypeVar("T")

SECONDS: Final = 30.0  # for a page
PAGE: Final = 100  # objects; a pod has some 10 KiB
TRIES: Final = 5
WAIT: Final = 0.5  # seconds before the second try, twice as long before each further one


async def listed(access: Access, path: str, kind: str, take: Callable[[dict[str, Any]], T]) -> list[T]:
    """What `take` makes of every object under this path, of this kind. Raises CannotAsk."""
    limit, wait = PAGE, WAIT
    for last in (*[False] * (TRIES - 1), True):
        try:
            return await _pages(access, path, kind, take, limit)
        except AnswerTooLarge as error:
            if last or limit == 1:
                raise CannotAsk(f"{access}: {error}") from None
            limit = max(1, limit // 8)
            continue
        except Gone:
            if last:
                raise CannotAsk(f"{access}: it forgets its pages before they are asked for (410)") from None
        except _Later as error:
            if last:
                raise CannotAsk(str(error)) from None
            wait = max(wait, error.retry_after)
        await trio.sleep(wait)
        wait *= 2.0
    raise AssertionError("the last try returns or raises")


class _Later(CannotAsk):
    """It may be otherwise in a moment."""


async def _pages(
    access: Access, path: str, kind: str, take: Callable[[dict[str, Any]], T], limit: int
) -> list[T]:
    found: list[T] = []
    after, begun = "", False
    while after or not begun:
        async with _asking(access) as client:
            while after or not begun:
                more = f"&continue={quote(after, safe='')}" if after else ""
                target = f"{access.path}{path}?limit={limit}{more}"
                with trio.fail_after(SECONDS):
                    answer = await client.request("GET", target, b"", access.fields())
                _check(access, path, answer)
                page = read_page(answer, kind)
                if page.after and page.after == after:
                    raise CannotAsk(f"{access} answers the same page of {path} again and again")
                found += [take(each) for each in page.items if isinstance(each, dict)]
                after, begun = page.after, True
                if not client.reusable:
                    break
    return found


def _check(access: Access, path: str, answer: Answer) -> None:
    if answer.status == 200:
        return
    if forgotten(answer, "list"):
        raise Gone
    if answer.status == 401:
        raise CannotAsk(f"{access} does not accept who we are (401); {told(answer)}; log in anew, or {PROXY_HINT}")
    if answer.status == 403:
        raise CannotAsk(f"we may not list {path} (403): namespaces and pods have to be readable; {told(answer)}")
    why = f"{access} answered {path} with {answer.status}; {told(answer)}"
    if answer.status == 429 or answer.status >= 500:
        raise _Later(why, retry_after(answer))
    raise CannotAsk(why)


@asynccontextmanager
async def _asking(access: Access) -> AsyncIterator[HttpClient]:
    try:
        with trio.fail_after(SECONDS):
            stream = await access.connect()
        try:
            yield HttpClient(stream, access.authority)
        finally:
            await trio.aclose_forcefully(stream)
    except trio.TooSlowError:
        raise _Later(f"{access}: no answer within {SECONDS:g} s") from None
    except AnswerTooLarge:
        raise
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, BadHttp) as error:
        if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
            raise CannotAsk(f"{access}: {cause(error)}") from None  # it will not be another one in a moment
        raise _Later(f"{access}: {cause(error)}") from None
