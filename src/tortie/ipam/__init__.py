"""Address management: pure block arithmetic (ipam.block) and the claim/assign/release protocol (ipam.allocator)."""
