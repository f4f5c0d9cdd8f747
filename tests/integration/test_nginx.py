"""nginx as the service, curl as its client, two sidecars between: what a web server does with HTTP must survive."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.meshes import Pair
from tests.kit.processes import eventually
from tests.kit.programs import Done, curl, nginx

LOCATIONS = """
        location = /empty { return 204; }
        location = /moved { return 302 /hello.txt; }
        location = /not-ours { return 421; }
        location /zip/ { alias ROOT/; gzip on; gzip_min_length 100; gzip_types text/plain; }
        location /store/ { alias ROOT/store/; dav_methods PUT DELETE; create_full_put_path on; }
"""
HELLO = b"hello through two sidecars\n"
LONG = b"".join(b"line %d\n" % number for number in range(5000))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pair, Path]]:
    folder = tmp_path_factory.mktemp("nginx")
    pair = Pair(folder)
    with nginx(folder, pair.ports.app, LOCATIONS.replace("ROOT", str(folder / "www"))) as root, pair:
        (root / "hello.txt").write_bytes(HELLO)
        (root / "long.txt").write_bytes(LONG)
        pair.start_all()
        yield pair, root


@pytest.fixture
def pair(served: tuple[Pair, Path]) -> Iterator[Pair]:
    yield served[0]
    assert curl(served[0].url + "/hello.txt").out == HELLO
    served[0].assert_well()


def fields(done: Done) -> dict[str, str]:
    """The fields of the last head that `curl -i` printed, names in lower case."""
    assert done.code == 0, done.err
    head = done.text.split("\r\n\r\n")[0]
    status, *lines = head.split("\r\n")
    found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {"status": status.split(" ")[1], **found}


def body(done: Done) -> bytes:
    return done.out.partition(b"\r\n\r\n")[2]


def test_a_static_file(pair: Pair) -> None:
    done = curl("-i", pair.url + "/hello.txt")
    answer = fields(done)
    assert (answer["status"], answer["content-length"], answer["content-type"]) == ("200", "27", "text/plain")
    assert answer["server"].startswith("nginx/")
    assert body(done) == HELLO


def test_no_content(pair: Pair) -> None:
    answer = fields(curl("-i", pair.url + "/empty"))
    assert answer["status"] == "204"
    assert "content-length" not in answer
    assert "transfer-encoding" not in answer


@pytest.mark.parametrize("validator", ["etag", "last-modified"])
def test_not_modified(pair: Pair, validator: str) -> None:
    value = fields(curl("-i", pair.url + "/hello.txt"))[validator]
    condition = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}[validator]
    done = curl("-i", "-H", f"{condition}: {value}", pair.url + "/hello.txt", pair.url + "/hello.txt")
    assert fields(done)["status"] == "304"
    assert done.text.count("HTTP/1.1 304") == 2  # the second on the same connections: no body was waited for
    assert HELLO not in done.out


@pytest.mark.parametrize(("wanted", "got"), [("0-4", HELLO[:5]), ("-9", HELLO[-9:]), ("6-", HELLO[6:])])
def test_range(pair: Pair, wanted: str, got: bytes) -> None:
    done = curl("-i", "-r", wanted, pair.url + "/hello.txt")
    answer = fields(done)
    assert answer["status"] == "206"
    assert answer["content-range"].endswith("/27")
    assert body(done) == got


def test_several_ranges(pair: Pair) -> None:
    done = curl("-i", "-r", "0-4,6-12", pair.url + "/hello.txt")
    assert fields(done)["content-type"].startswith("multipart/byteranges")
    assert b"hello" in body(done)
    assert b"through" in body(done)


def test_a_range_that_cannot_be(pair: Pair) -> None:
    assert fields(curl("-i", "-r", "9999-", pair.url + "/hello.txt"))["status"] == "416"


def test_gzip_made_on_the_fly_is_chunked_and_intact(pair: Pair) -> None:
    done = curl("-i", "--raw", "-H", "Accept-Encoding: gzip", pair.url + "/zip/long.txt")
    answer = fields(done)
    assert (answer["content-encoding"], answer["transfer-encoding"]) == ("gzip", "chunked")
    plain = curl("-H", "Accept-Encoding: gzip", pair.url + "/zip/long.txt")
    assert gzip.decompress(plain.out) == LONG


def test_a_redirect_stays_on_the_applications_door(pair: Pair) -> None:
    """nginx makes a relative Location absolute from Host, which is the upstream's declared name, not the door."""
    answer = fields(curl("-i", pair.url + "/moved"))
    assert answer["status"] == "302"
    assert answer["location"] in ("http://app/hello.txt", f"http://app:{pair.ports.app}/hello.txt")


def test_a_status_that_http2_made(pair: Pair) -> None:
    assert fields(curl("-i", pair.url + "/not-ours"))["status"] == "421"


def test_put_and_delete(pair: Pair, served: tuple[Pair, Path], tmp_path: Path) -> None:
    """64 MiB into nginx's own storage, byte for byte, and away again."""
    content = hashlib.shake_256(b"upload").digest(1 << 20) * 64
    (tmp_path / "upload").write_bytes(content)
    done = curl("-i", "-T", str(tmp_path / "upload"), pair.url + "/store/file")
    assert "HTTP/1.1 201" in done.text, done
    stored = served[1] / "store" / "file"
    assert hashlib.sha256(stored.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert fields(curl("-i", "-X", "DELETE", pair.url + "/store/file"))["status"] == "204"
    assert not stored.exists()


def test_keep_alive_toward_nginx_outlives_the_clients_connections(pair: Pair, served: tuple[Pair, Path]) -> None:
    """Ten clients, one after another: the sidecars' pools make of them one connection to nginx."""
    log = pair.folder / "nginx-access.log"
    handshakes = pair["app"].metrics().total("mesh_tls_handshakes_total", result="ok", direction="inbound")
    for _ in range(10):
        assert curl(pair.url + "/hello.txt?pooled").out == HELLO
    eventually("nginx has logged them", lambda: log.read_text().count("?pooled") == 10)
    after = pair["app"].metrics().total("mesh_tls_handshakes_total", result="ok", direction="inbound")
    assert after - handshakes <= 1
