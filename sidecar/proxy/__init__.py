"""Drives hops: asks the pure floors below, and acts through the net.

`inbound` and `outbound` are the two sides of a sidecar: what they add to a request and take from it, and whom they
ask, each in the order the bytes travel. `http` drives a downstream connection, `exchange` one request on it, `tcp` a
raw connection; `upstream` connects to whoever is called. A failure is an error of `sidecar.errors`, and `respond`
alone knows what a caller sees of it.
"""
