"""How a sidecar comes by its identity, and keeps it.

    enrol      which proof to show, and what the state folder keeps (never an SVID's key)
    ca_client  one connection to the CA: it must prove itself first; then the calls of its API
    watch      the long-lived exchange that brings bundles and the CA's time
    rotator    START HERE: the task that obtains, renews and publishes, and never gives up
    status     what all of this looks like from outside, as a value

Things flow one way: the CA's answers become generations in two sources, the SVID and the bundles; everybody else reads
those. Nothing here serves traffic.
"""
