"""calico-kube-controllers: what the cluster needs once, not on each node."""
