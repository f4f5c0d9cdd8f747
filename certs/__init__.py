"""What an identity is: the ground floor, shared by the sidecar and the CA.

`spiffe` names workloads, `svid` holds the certificate and key that prove a name, `bundle` the roots that vouch for it,
and `verify` joins the three into a verdict. `keys`, `csr` and `store` make and guard key material; `rotation` is the
arithmetic of renewal; `source` publishes generations of SVIDs and bundles to whoever uses them.

Nothing in here opens a socket. Keys live in memory or in a run directory, never in this package.
"""
