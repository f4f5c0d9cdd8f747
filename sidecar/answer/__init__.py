"""What goes outside on behalf of a decision: to a disk or a network, where the pure floors may not.

`quota_desk` carries what quotas order to `quota_file`, which outlives restarts, or to `quota_redis`, which sidecars
share; `redis` counts limits together; `opa` asks about requests, `credentials` gets tokens for upstreams outside. Each
module implements a small protocol that its pure side has declared, and translates what its library raises into that
side's own error.
"""
