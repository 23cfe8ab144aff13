"""Resource kinds, names and constants: plain data, no I/O."""
