"""Side by side, in one run: what one request costs the CPU in our hop, and in the hops that others run.

`python -m tests.bench` starts each contestant as an inbound mTLS hop: client certificate required and verified, the
caller's SPIFFE ID checked where the contestant can, plaintext to the same back end, one worker, pinned to core 0.
Load (wrk), the client side of mTLS (haproxy, since wrk cannot show a certificate) and the back end (nginx) share
core 1. Rounds are interleaved. The figure is the contestant's CPU time per request; only ratios within one run mean
anything, and the run says when rounds differ too much to conclude.
"""
