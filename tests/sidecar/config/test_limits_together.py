"""How limits count: where a Redis is, and what of it contradicts itself or never acts."""

from __future__ import annotations

import pytest

from sidecar.config.load import load_bytes, load_text
from sidecar.config.mistakes import ConfigErrors, Mistake
from sidecar.config.terms import Address

TEXT = """\
trust_domain: demo.mesh
services:
  web: {outbound: [{to: orders, listen: "127.0.0.1:9001"}]}
  orders:
    inbound: [{protocol: http}]
    allow: [{from: web}]
"""


def orders(redis: str, rates: str = "") -> str:
    said = {"redis": redis, "rates": rates}
    return TEXT + "".join(f"    {key}: {value}\n" for key, value in said.items() if value)


def mistakes(text: str) -> list[Mistake]:
    with pytest.raises(ConfigErrors) as caught:
        load_text(text)
    return list(caught.value.mistakes)


@pytest.mark.parametrize(("url", "address", "tls", "database"), [
    ("redis://10.0.0.9:6380/2", Address("10.0.0.9", 6380), False, 2),
    ("redis://redis.internal", Address("redis.internal", 6379), False, 0),
    ("rediss://redis.internal:6390/", Address("redis.internal", 6390), True, 0),
    ("redis://[fd00::1]:6379/0", Address("fd00::1", 6379), False, 0),
    ("redis://[fd00::1]", Address("fd00::1", 6379), False, 0),
    ("unix:/run/redis.sock", Address("unix:/run/redis.sock", 0), False, 0),
    ("unix:///run/redis.sock", Address("unix:/run/redis.sock", 0), False, 0),
])  # fmt: skip
def test_where_it_is(url: str, address: Address, tls: bool, database: int) -> None:
    redis = load_text(orders(f'{{url: "{url}"}}')).services["orders"].redis
    assert redis is not None
    assert (redis.url.address, redis.url.tls, redis.url.database) == (address, tls, database)


@pytest.mark.parametrize(("url", "hint"), [
    ("redis.internal:6379", "did you mean redis://redis.internal:6379?"),
    ("http://redis.internal", "did you mean redis://redis.internal?"),
    ("redis://", "write redis://HOST:6379, rediss://HOST:6379 (by TLS) or unix:/run/redis.sock"),
    ("redis://h:6379?db=1", "options have keys of their own: within:, prefix:, ca_file:"),
    ("redis://h:70000", "it goes from 1 to 65535"),
    ("redis://h:6379/x", "write redis://HOST:6379, rediss://HOST:6379 (by TLS) or unix:/run/redis.sock"),
])  # fmt: skip
def test_what_is_none_is_mended(url: str, hint: str) -> None:
    (mistake,) = mistakes(orders(f'{{url: "{url}"}}'))
    assert (mistake.path, mistake.hint) == ("services.orders.redis.url", hint)


def test_a_password_in_the_url_is_refused_and_never_repeated() -> None:
    (mistake,) = mistakes(orders('{url: "redis://mesh:hunter2@h:6379"}'))
    assert "hunter2" not in f"{mistake.message} {mistake.hint}"
    assert "password_file" in mistake.hint


@pytest.mark.parametrize(("redis", "rates", "path", "message"), [
    ("", "[{limit: 1/s, shared: redis}]", "rates[0].shared", "orders has no Redis to count in"),
    ("{url: 'redis://h'}", "[{limit: 1/s, shared: redis, over: delay}]", "rates[0].over",
     "nobody can wait for a turn that other sidecars hand out"),
    ("{url: 'redis://h'}", "[{limit: 200000/s, shared: redis}]", "rates[0].limit",
     "200000/s is more than one Redis can count"),
    ("{prefix: shop}", "[{limit: 1/s}]", "redis.url", "is required"),
])  # fmt: skip
def test_what_cannot_be_done_is_refused(redis: str, rates: str, path: str, message: str) -> None:
    (mistake,) = mistakes(orders(redis, rates))
    assert (mistake.path, mistake.message) == (f"services.orders.{path}", message)


@pytest.mark.parametrize(("redis", "rates", "codes"), [
    ("{url: 'redis://127.0.0.1', password_file: /p}", "[{limit: 1/s, shared: redis}]", []),
    ("{url: 'redis://10.0.0.1', password_file: /p}", "[{limit: 1/s, shared: redis}]", ["MESH087"]),
    ("{url: 'unix:/run/r.sock', password_file: /p}", "[{limit: 1/s, shared: redis}]", []),
    ("{url: 'redis://h', ca_file: /c}", "[{limit: 1/s, shared: redis}]", ["MESH088"]),
    ("", "[{limit: 1/s, delay: 1s, block: 5s}]", ["MESH085", "MESH085"]),
    ("", "[{limit: 6/m, over: delay}]", ["MESH086"]),
    ("", "[{limit: 10/s}, {limit: 10/s, over: delay, per: caller}]", []),
    ("{url: 'redis://h'}", "[{limit: 10/s}, {limit: 10/s, shared: redis, name: all}]", ["MESH081"]),
    ("{url: 'redis://h'}", "[{limit: 10/s}, {limit: 20/s, shared: redis, name: all}]", []),
    ("{url: 'redis://h'}", "[{limit: 10/s, shared: redis}, {limit: 10/s, name: all}]", ["MESH081"]),
    ("", "[{limit: 1/s, per: claim sub}]", ["MESH082"]),
])  # fmt: skip
def test_what_never_acts_is_told(redis: str, rates: str, codes: list[str]) -> None:
    assert [each.code for each in load_bytes(orders(redis, rates).encode()).warnings] == codes
