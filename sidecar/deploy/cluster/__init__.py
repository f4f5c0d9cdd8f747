"""What stands in a Kubernetes cluster beside the pods: what to install there, and what is there.

    manifests/    CA, injector, rights and policies as plain kustomize; deploy/k8s leads here
    kustomize     a strict reader of the part of kustomize that they use
    install       the same for a namespace, an image and a trust domain of yours: `mesh install`
    access        how to reach a cluster from a pod, by a kubeconfig or through `kubectl proxy`
    listing       lists of the API server, page by page
    escaped       pods that should have a sidecar and have none, and why: `mesh uninjected`

Nothing here is needed by a sidecar that runs.
"""
