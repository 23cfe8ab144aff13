"""Names and numbers that are the same on every node of a cluster and known to people and tools."""

from typing import Final

# Node annotations (Calico's Kubernetes datastore).
ANNOTATION_IPV4_ADDRESS: Final = "projectcalico.org/IPv4Address"  # CIDR: node address with its prefix length
ANNOTATION_IPIP_TUNNEL: Final = "projectcalico.org/IPv4IPIPTunnelAddr"
ANNOTATION_VXLAN_TUNNEL: Final = "projectcalico.org/IPv4VXLANTunnelAddr"
ANNOTATION_VXLAN_MAC: Final = "projectcalico.org/VXLANTunnelMACAddr"
ANNOTATION_AS_NUMBER: Final = "projectcalico.org/ASNumber"

# Pod annotations written by the CNI server.
ANNOTATION_POD_IP: Final = "cni.projectcalico.org/podIP"
ANNOTATION_POD_IPS: Final = "cni.projectcalico.org/podIPs"
ANNOTATION_CONTAINER_ID: Final = "cni.projectcalico.org/containerID"

# Pod annotation that people write: a JSON list of addresses that lead to the pod beside its own.
ANNOTATION_FLOATING: Final = "cni.projectcalico.org/floatingIPs"

# On crd.projectcalico.org/v1 objects: metadata as JSON, where Calico's clients keep labels and annotations.
ANNOTATION_METADATA: Final = "projectcalico.org/metadata"

# Labels of a BlockAffinity.
LABEL_HOSTNAME_HASH: Final = "projectcalico.org/hostname-hash"
LABEL_AFFINITY_TYPE: Final = "projectcalico.org/affinity-type"
LABEL_IP_VERSION: Final = "projectcalico.org/ip-version"
AFFINITY_TYPE_HOST: Final = "host"

# Labels that a WorkloadEndpoint has beside its pod's.
LABEL_NAMESPACE: Final = "projectcalico.org/namespace"
LABEL_ORCHESTRATOR: Final = "projectcalico.org/orchestrator"
LABEL_SERVICE_ACCOUNT: Final = "projectcalico.org/serviceaccount"

IPIP_DEVICE: Final = "tunl0"
VXLAN_DEVICE: Final = "vxlan.calico"
VXLAN_VNI: Final = 4096
VXLAN_PORT: Final = 4789
INTERFACE_PREFIX: Final = "cali"

# Overhead in bytes on the underlying link (RFC 2003; RFC 7348 over IPv4).
IPIP_OVERHEAD: Final = 20
VXLAN_OVERHEAD: Final = 50

# rtnetlink route protocols (linux/rtnetlink.h; 80 is Felix's).
RTPROT_BOOT: Final = 3
RTPROT_BIRD: Final = 12
RTPROT_TORTIE: Final = 80

DEFAULT_AS_NUMBER: Final = 64512
DEFAULT_BLOCK_SIZE: Final = 26
DEFAULT_POOL_CIDR: Final = "192.168.0.0/16"
DEFAULT_POOL_NAME: Final = "default-ipv4-ippool"

# Paths on the host, mounted into the calico-node container under the same names.
NODENAME_FILE: Final = "/var/lib/calico/nodename"
MTU_FILE: Final = "/var/lib/calico/mtu"
CNI_JOURNAL_DIR: Final = "/var/lib/calico/cni-journal"
RUN_DIR: Final = "/var/run/calico"
CNI_SOCKET: Final = "/var/run/calico/cni.sock"
BIRD_SOCKET: Final = "/var/run/calico/bird.ctl"
BIRD_CONFIG: Final = "/etc/calico/bird.cfg"

HEALTH_PORT: Final = 9099
METRICS_PORT: Final = 9091

# The address every pod routes through; the host's end of the veth answers for it (proxy ARP).
POD_GATEWAY: Final = "169.254.1.1"
HOST_VETH_MAC: Final = "ee:ee:ee:ee:ee:ee"
