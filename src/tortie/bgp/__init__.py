"""BGP: who peers with whom, rendered for BIRD 2, and its control socket."""
