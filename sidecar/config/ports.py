"""Every default port, in one table. None of them is a port of Istio (15000 to 15090) or Linkerd (4140 to 4191)."""

CA = 17012  # HTTPS of `mesh ca serve`
INJECTOR = 17018  # HTTPS of `mesh injector`, for the API server alone
INBOUND = 17443  # mTLS from peers; further inbound listeners count up from here
FORWARD = 17080  # the application's forward proxy, loopback only
HEALTH = 17090  # /livez /readyz /metrics, read-only, loopback unless configured otherwise
CAPTURE_IN = 17006  # where redirect rules send what comes from outside
CAPTURE_OUT = 17001  # where they send what the application sends out
