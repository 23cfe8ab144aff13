"""Pools, blocks and nodes in, desired routes and tunnels out: pure."""
