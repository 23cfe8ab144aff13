"""The local lab: everything that turns one Debian machine into a cluster of container nodes.

Nothing in here runs on a cluster's machines; the collection (roles, plugins) and the network (src/tortie) do.
"""


class LabError(Exception):
    """Something the user can act on. The message is a sentence that names the cause and the remedy."""
