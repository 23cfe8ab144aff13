"""CNI: the shim on the host, the server in the agent, and the installer that puts the shim there."""
