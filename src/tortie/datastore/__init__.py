"""One interface to the cluster's state (datastore.interface) and its backends."""
