"""HTTP as values: bytes in, events out, no I/O.

`message` is the one tongue, `h1` speaks it in HTTP/1 (h11 keeping the books), `h2` in HTTP/2 (h2 keeping them),
`versions` leads from one to the other. `canonical` gives a request target and a host exactly one reading, `headers`
keeps what belongs to one connection on it, `grpc` knows what a proxy must know of gRPC.
"""
