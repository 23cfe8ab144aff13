"""The calico-node container: supervisor, start-up, watch, compute, apply, health."""
