"""The only code that touches the kernel: rtnetlink, nftables, sysctls, network namespaces."""
