"""Sockets, TLS, and the engine that drives connections.

`port` is what a connection coroutine sees; `reactor` (epoll inside one trio task) and `memory` (virtual time) drive
it. `wires` and `tls` are its streams, `contexts` turns an SVID and a bundle into TLS contexts, `listener` accepts,
`dial` and `pool` connect and keep. `tls_stream`, `http_server` and `http_client` are ordinary trio, for the slow
paths: the CA, the admin socket, health.
"""
