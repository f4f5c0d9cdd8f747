"""What goes outside on behalf of a decision: to a disk or a network, where the pure floors may not.

`quota_file` keeps quotas across restarts; `redis` is where sidecars count together. Each module implements a small
protocol that its pure side has declared, and translates what its library raises into that side's own error.
"""
