"""The demo behind `mesh up`: a `mesh.yaml` (`config`) and one small application in three roles (`app`).

    web ──GET, POST /orders──▶ orders ──POST /charges──▶ payments
     └───────────GET /charges, each second: refused──────────▲

Real HTTP over real sidecars; only the standard library, so that the applications start in a blink. The web role plays
the customer too: about twenty requests a second, and the one call that nothing allows.
"""
