"""Compose files for tests, and what comes of them."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML

from sidecar.config.load import load_text
from sidecar.config.mistakes import ConfigErrors
from sidecar.config.schema import MeshConfig
from sidecar.deploy.compose.inject import Injected, Options, inject

SHOP = """\
# The shop.
version: "3.8"

x-common: &common
  restart: always   # keep
  networks: [front]

services:
  # what customers see
  web:
    <<: *common
    build: ./web
    ports:
      - "8080:8000"  # http
    environment:
      ORDERS_URL: "http://orders:8000"   # where orders are
      POSTGRES_DB: orders
    depends_on:
      - orders

  # the middle
  orders:
    image: shop/orders:1
    environment:
      - DATABASE_URL=postgres://app:${PW:-x}@db/orders
    depends_on:
      db:
        condition: service_healthy
    networks:
      - front
      - back
    deploy:
      replicas: 2

  db:
    image: postgres:16
    volumes: ["data:/var/lib/postgresql/data"]
    networks: [back]
    healthcheck:
      test: ["CMD", "pg_isready"]

networks:
  front:
  back: {internal: true}
volumes:
  data: # the user's
"""


def injected(text: str, **options: Any) -> Injected:
    """This file with the mesh in it, of a project named shop."""
    env_files = options.pop("env_files", None)
    return inject(text.encode(), "docker-compose.yml", Options("shop", **options), env_files)


def services(made: Injected) -> dict[str, Any]:
    """The services of what was made, read by a YAML reader that knows nothing of us."""
    return document(made)["services"]  # type: ignore[no-any-return]


def document(made: Injected) -> dict[str, Any]:
    """All of what was made."""
    return YAML(typ="safe").load(io.BytesIO(made.compose))  # type: ignore[no-any-return]


def mesh(made: Injected) -> MeshConfig:
    """The mesh.yaml, read as a sidecar would read it."""
    return load_text(made.mesh)


def mistakes(text: str, **options: Any) -> list[str]:
    """What is said of a file that cannot be injected, without the file's name; none where it can."""
    try:
        injected(text, **options)
    except ConfigErrors as errors:
        return [str(each).removeprefix("docker-compose.yml:") for each in errors.mistakes]
    return []


def calls(made: Injected) -> set[str]:
    """Who may call whom: `web → orders:8000`."""
    found = set()
    for name, service in mesh(made).services.items():
        for rule in service.allow:
            ports = [port.removeprefix("port-") for port in rule.ports]
            found |= {f"{caller} → {name}:{port}" for caller in _names(rule) for port in ports}
    return found


def _names(rule: Any) -> list[str]:
    return [str(caller).rpartition("/")[2] for caller in rule.callers]
