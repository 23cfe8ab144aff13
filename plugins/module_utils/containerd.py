# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""containerd's configuration as text, by containerd's version: settings in, TOML out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CONFIG = "/etc/containerd/config.toml"
CERTS_FOLDER = "/etc/containerd/certs.d"
# A containerd whose version is not to be had (check mode before the installation) is taken for this one.
ASSUMED_VERSION = (1, 7)


@dataclass(frozen=True)
class ContainerdSettings:
    """sandbox_image: the pause image's reference; mirrors: URLs by registry host; cni_bin_dir, cni_conf_dir:
    folders.
    """

    sandbox_image: str
    systemd_cgroup: bool
    restrict_oom_score_adj: bool
    cni_bin_dir: str = "/opt/cni/bin"
    cni_conf_dir: str = "/etc/cni/net.d"
    mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict)


def parse_version(text: str) -> tuple[int, int]:
    """Major and minor of `containerd --version`. Raises ValueError."""
    match = re.search(r"\bv?(\d+)\.(\d+)\.\d+", text)
    if match is None:
        raise ValueError(f"containerd --version printed {text.strip()!r}, in which there is no version")
    return int(match.group(1)), int(match.group(2))


def render(version: tuple[int, int], settings: ContainerdSettings) -> str:
    """config.toml: version 2 of its format for containerd 1.x, version 3 (whose plugins have other names)
    from 2.0 on.
    """
    return _render_3(settings) if version >= (2, 0) else _render_2(version, settings)


def mirror_files(settings: ContainerdSettings) -> dict[str, str]:
    """Text by path of the hosts.toml of each registry that has mirrors; the registry itself is asked last."""
    files = {}
    for registry, mirrors in sorted(settings.mirrors.items()):
        lines = [f"server = {_text(_registry_url(registry))}", ""]
        for mirror in mirrors:
            lines += [f"[host.{_text(mirror)}]", '  capabilities = ["pull", "resolve"]', ""]
        files[f"{CERTS_FOLDER}/{registry}/hosts.toml"] = "\n".join(lines).rstrip("\n") + "\n"
    return files


def _render_2(version: tuple[int, int], settings: ContainerdSettings) -> str:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    lines = [
        "version = 2",
        "",
        f"[{cri}]",
        f"  sandbox_image = {_text(settings.sandbox_image)}",
        f"  restrict_oom_score_adj = {_truth(settings.restrict_oom_score_adj)}",
        "",
        f"[{cri}.cni]",
        f"  bin_dir = {_text(settings.cni_bin_dir)}",
        f"  conf_dir = {_text(settings.cni_conf_dir)}",
        "",
        f"[{cri}.containerd.runtimes.runc]",
        '  runtime_type = "io.containerd.runc.v2"',
        "",
        f"[{cri}.containerd.runtimes.runc.options]",
        f"  SystemdCgroup = {_truth(settings.systemd_cgroup)}",
    ]
    # config_path came with 1.5; the older releases end in their own support before ours begins.
    if version >= (1, 5):
        lines += ["", f"[{cri}.registry]", f"  config_path = {_text(CERTS_FOLDER)}"]
    return "\n".join(lines) + "\n"


def _render_3(settings: ContainerdSettings) -> str:
    runtime = "plugins.'io.containerd.cri.v1.runtime'"
    images = "plugins.'io.containerd.cri.v1.images'"
    lines = [
        "version = 3",
        "",
        f"[{images}.pinned_images]",
        f"  sandbox = {_text(settings.sandbox_image)}",
        "",
        f"[{images}.registry]",
        f"  config_path = {_text(CERTS_FOLDER)}",
        "",
        f"[{runtime}]",
        f"  restrict_oom_score_adj = {_truth(settings.restrict_oom_score_adj)}",
        "",
        f"[{runtime}.cni]",
        # A list since 2.1; 2.0 reads bin_dir only, and every 2.x still reads it.
        f"  bin_dir = {_text(settings.cni_bin_dir)}",
        f"  conf_dir = {_text(settings.cni_conf_dir)}",
        "",
        f"[{runtime}.containerd.runtimes.runc]",
        "  runtime_type = 'io.containerd.runc.v2'",
        "",
        f"[{runtime}.containerd.runtimes.runc.options]",
        f"  SystemdCgroup = {_truth(settings.systemd_cgroup)}",
    ]
    return "\n".join(lines) + "\n"


def _registry_url(registry: str) -> str:
    # Docker's registry answers under another name than the one in its images' names.
    return "https://registry-1.docker.io" if registry == "docker.io" else f"https://{registry}"


def _text(value: str) -> str:
    """A TOML basic string; JSON's quoting is a subset of it."""
    return json.dumps(value, ensure_ascii=False)


def _truth(value: bool) -> str:
    return "true" if value else "false"
