"""From a pod to the same pod with a sidecar, as values: no cluster, no clock, no files.

    annotations   what an operator may say about one pod, in one table; docs/annotations.md is printed from it
    record        what we added, written on the pod itself, so that it can be taken away again and replaced
    refusals      pods that cannot have a sidecar, and why
    probes        the application's probes, moved to the sidecar's health port
    containers    the sidecar, the step before it, and the volumes they need
    pod           all of it in order: take away what an older version added, read, refuse or add
    patch         what has changed between two values, as a JSON patch; and a patch put in force
    workloads     which kinds of objects have a pod in them, and where
    documents     a YAML file as the documents in it; those that nobody changes stay as they are, byte for byte
    policy        the NetworkPolicy that guards a pod without redirection
    review        AdmissionReview v1: the same function behind the webhook
    webhook       the server around it

`mesh inject` and `mesh injector` call `pod.inject`, so both give the same pod.
"""
