#!/bin/sh
# Runs iptables in the flavour that the host uses: rules of the legacy and of the nftables variant must not be mixed.
#
# In the image every iptables command name is a link to this script. Its first run looks for chains that the kubelet
# made in the host's network namespace, points the links at the variant that holds them, and runs the command.
# Without such a chain the variant with more rules wins; nftables when both are empty.
set -u

sbin=/usr/sbin
variant_of() {
    name=$1
    variant=$2
    case $name in
    ip6tables*) echo "ip6tables-$variant${name#ip6tables}" ;;
    *) echo "iptables-$variant${name#iptables}" ;;
    esac
}

rules() {
    # Both families: a host may have rules in one only.
    "$sbin/iptables-$1-save" -t "$2" 2>/dev/null
    "$sbin/ip6tables-$1-save" -t "$2" 2>/dev/null
}

detect() {
    for variant in nft legacy; do
        if rules "$variant" mangle | grep -qE '^:(KUBE-IPTABLES-HINT|KUBE-KUBELET-CANARY) '; then
            echo "$variant"
            return
        fi
    done
    nft=$( { rules nft filter; rules nft nat; } | grep -c '^-')
    legacy=$( { rules legacy filter; rules legacy nat; } | grep -c '^-')
    if [ "$legacy" -gt "$nft" ]; then
        echo legacy
    else
        echo nft
    fi
}

variant=$(detect)
for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    # Renaming over the link is atomic: another command may be starting at this moment.
    ln -sf "$(variant_of "$name" "$variant")" "$sbin/.$name.$$" && mv -f "$sbin/.$name.$$" "$sbin/$name"
done
exec "$sbin/$(variant_of "${0##*/}" "$variant")" "$@"
