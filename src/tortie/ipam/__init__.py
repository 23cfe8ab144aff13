"""Address management: arithmetic of blocks and pools (pure), claiming blocks, assigning and releasing."""
