"""Tortie: a Calico-style Kubernetes network in Python."""

__version__ = "0.1.0"
