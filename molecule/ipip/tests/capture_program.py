"""Runs on a node, by `python3 -c`: IPv4 packets of a link that carry one of some addresses at any layer.

Arguments: link, then addresses. A line of JSON for each packet: its IPv4 headers, outermost first. The first
line is "ready"; it ends when standard input does.
"""

import json
import os
import select
import socket
import struct
import sys

ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800  # linux/if_ether.h
IPPROTO_IPIP, IPPROTO_UDP = 4, 17  # linux/in.h
VXLAN_PORT = 4789  # RFC 7348
ETHERNET, UDP, VXLAN = 14, 8, 8  # lengths of headers in bytes


def headers(frame: bytes) -> list[dict[str, object]]:
    """The IPv4 headers of an Ethernet frame, from the outside in, through IP-in-IP and VXLAN."""
    if len(frame) < ETHERNET + 20 or struct.unpack_from("!H", frame, 12)[0] != ETH_P_IP:
        return []
    packet = frame[ETHERNET:]
    length, _identification, fragment = struct.unpack_from("!HHH", packet, 2)
    protocol = packet[9]
    header: dict[str, object] = {
        "source": socket.inet_ntoa(packet[12:16]),
        "destination": socket.inet_ntoa(packet[16:20]),
        "protocol": protocol,
        "length": length,
        # RFC 791: don't fragment; more fragments, or an offset.
        "df": bool(fragment & 0x4000),
        "fragment": bool(fragment & 0x3FFF),
    }
    payload = packet[(packet[0] & 0x0F) * 4 :]
    if protocol == IPPROTO_IPIP:
        return [header, *headers(frame[:ETHERNET] + payload)]
    is_vxlan = protocol == IPPROTO_UDP and payload[2:4] == struct.pack("!H", VXLAN_PORT)
    return [header, *headers(payload[UDP + VXLAN :])] if is_vxlan else [header]


def main() -> None:
    """Print until standard input ends."""
    link, addresses = sys.argv[1], set(sys.argv[2:])
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as raw:
        raw.bind((link, ETH_P_ALL))
        print(json.dumps("ready"), flush=True)
        while True:
            readable, _writable, _exceptional = select.select([raw, sys.stdin], [], [])
            if raw in readable:
                layers = headers(raw.recv(65535))
                if any(addresses & {layer["source"], layer["destination"]} for layer in layers):
                    print(json.dumps(layers), flush=True)
            elif not os.read(sys.stdin.fileno(), 1):
                return


main()
