"""How a sidecar comes by its identity, and keeps it.

    rotator    START HERE: the task that obtains, renews and publishes, and never gives up
    watching   the loop beside it that keeps the watch open; `watch` reads one: bundles and the CA's time
    holdings   what both of them hold, and the one place where it changes
    enrol      which proof to show; `state` is what the state folder keeps (never an SVID's key)
    ca_client  one connection to the CA: it must prove itself first; then the calls of its API; `answers` reads them
    jwt_svids  tokens of our identity, for whoever cannot do mTLS
    workload_api  all of this for the application, by SPIFFE's own protocol; its messages are in `workload_messages`
    given      an identity that somebody else keeps: `from_files`, or `from_workload_api` of another agent
    status     what all of this looks like from outside, as a value

Things flow one way: the CA's answers become generations in two sources, the SVID and the bundles; everybody else reads
those. Nothing here serves traffic.
"""
