"""A shop with a contract, for scenes in memory: its document, its listener, requests and answers by hand."""

from __future__ import annotations

import json

from tests.kit.h1_line import Answer, Line

CONTRACT = """
openapi: 3.1.0
info: {title: shop, version: "1"}
paths:
  /orders:
    post:
      operationId: placeOrder
      requestBody:
        required: true
        content:
          application/json: {schema: {$ref: '#/components/schemas/Draft'}}
      responses:
        '201': {description: made, content: {application/json: {schema: {$ref: '#/components/schemas/Order'}}}}
  /orders/mine:
    get:
      operationId: myOrders
      responses:
        '200':
          description: all
          content:
            application/json: {schema: {type: array, items: {$ref: '#/components/schemas/Order'}}}
  /orders/{id}:
    get:
      operationId: getOrder
      parameters:
        - {name: id, in: path, required: true, schema: {type: integer, minimum: 1}}
        - {name: tag, in: query, schema: {type: array, items: {type: string, maxLength: 8}}}
      responses:
        '200': {description: one, content: {application/json: {schema: {$ref: '#/components/schemas/Order'}}}}
        '404': {description: none, content: {application/problem+json: {schema: {type: object}}}}
  /old:
    get:
      operationId: old
      deprecated: true
      x-deprecated-since: 2025-01-01
      x-sunset: 2099-01-01
      responses: {'204': {description: nothing}}
  /gone:
    get:
      operationId: gone
      x-sunset: 2001-01-01
      responses: {'204': {description: nothing}}
components:
  schemas:
    Draft:
      type: object
      required: [sku]
      additionalProperties: false
      properties: {sku: {type: string, pattern: '^[a-z]{1,20}$'}, count: {type: integer}}
    Order:
      type: object
      required: [id]
      properties:
        id: {type: integer}
        customer: {type: object, properties: {name: {type: string}}}
"""
GRANTS = """    grants:
      web: {operations: [getOrder, placeOrder], fields: [id, customer.name]}
"""
ORDER = {"id": 7, "customer": {"name": "Ann", "iban": "DE00"}, "margin": 0.4}


def contract(mode: str = "enforce", more: str = "") -> str:
    return f", contract: {{openapi: contract.yaml, mode: {mode}{more}}}"


def under(mode: str = "enforce", more: str = "", grants: bool = False) -> dict[str, str]:
    return {"http": contract(mode, more), "contract": CONTRACT, "orders": GRANTS if grants else "",
            "may": "nobody" if grants else "web"}  # fmt: skip


def get(path: str, more: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: orders\r\n%b\r\n" % (path.encode(), more)


def post(body: bytes, kind: bytes = b"application/json", more: bytes = b"") -> bytes:
    length = b"" if b"chunked" in more else b"Content-Length: %d\r\n" % len(body)
    kind = b"Content-Type: %b\r\n" % kind if kind else b""
    return b"POST /orders HTTP/1.1\r\nHost: orders\r\n%b%b%b\r\n%b" % (kind, length, more, body)


def answer(value: object, status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    length = b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%b%b\r\n%b" % (status, length, more, body)


async def ask(line: Line, request: bytes, method: str = "GET") -> Answer:
    await line.say(request)
    return await line.answer(method)
