"""Side by side, in one run: what one request costs the CPU in our hop, and in the hops that others run.

Each contestant is an mTLS hop with one worker, pinned to core 0: client certificate required and verified against the
CA that also serves our sidecars, the SPIFFE ID checked where the contestant can, plaintext to the same back end. Ours
is `mesh run` with every default on. Load (`load/`, our own, in C, which checks every answer) and the back end (nginx)
share core 1. Rounds are interleaved and each goes in the reverse order of the one before. The figure is the
contestant's CPU time for a request, children and ended threads included; only ratios within one run mean anything,
and the run says when the machine was too noisy to conclude.

    rows.py     the rows and their bars, as data
    peers/      the others' configurations, mesh.py ours, backend.py what is behind them all
    stage.py    starts everybody, measures one; machine.py asks the kernel
    judge.py    medians, ratios, noise, verdicts; report.py the table
"""
