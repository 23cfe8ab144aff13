"""Probes between pods and the judgement of what each node reports."""
