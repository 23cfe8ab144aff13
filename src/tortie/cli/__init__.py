"""tortiectl, also installed as calicoctl."""
