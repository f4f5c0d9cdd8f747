"""Where upstreams are, for those of which a configuration does not say it: by DNS name, file, SRV records, Kubernetes.

`follow` has a task for each source (`sources`), whatever number of upstreams shares it. `ways` knows the loop of each
kind: look-ups (`names`, `services`), a watched file (`file_watch`, read by `file_list`), a cluster (`kubernetes`, whose
objects `slices` reads). A loop tells a `listing` what there is, or why it cannot tell, and the last list stands. What
is told decides where we connect, and never whom we believe there.
"""
