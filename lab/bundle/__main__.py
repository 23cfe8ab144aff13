"""Command line: make or fetch a bundle; the last line of standard output is its directory."""

import argparse
import signal
import sys
from pathlib import Path

from plugins.module_utils.bundle import BundleError

from lab import LabError
from lab.bundle import choice, official
from lab.bundle.progress import say


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab.bundle",
        description="Make or fetch a bundle; print its directory as last line.",
    )
    defaults = official.Sources()
    parser.add_argument("--version", help=f"Kubernetes version (default: {choice.DEFAULT_VERSION})")
    parser.add_argument("--provider", choices=choice.PROVIDERS, default=choice.AUTO, help="default: auto")
    parser.add_argument("--architecture", help="amd64, arm64, ... (default: this machine's)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="copy the bundle there, instead of the cache only"
    )
    parser.add_argument(
        "--use", type=Path, metavar="DIR", help="verify a bundle made elsewhere, and make nothing"
    )
    parser.add_argument(
        "--base-url", default=defaults.kubernetes, help="download site of Kubernetes (%(default)s)"
    )
    parser.add_argument("--crictl-url", default=defaults.crictl, help="releases of cri-tools (%(default)s)")
    parser.add_argument("--cni-url", default=defaults.cni, help="releases of the CNI plugins (%(default)s)")
    parser.add_argument(
        "--image-registry", default=defaults.image_registry, help="pull images from (%(default)s)"
    )
    parser.add_argument(
        "--plain-registry", action="store_true", help="the registry has no TLS that can be checked"
    )
    return parser


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    # An orderly end on SIGTERM too, so that no compiler keeps running.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sources = official.Sources(
        kubernetes=options.base_url.rstrip("/"),
        crictl=options.crictl_url.rstrip("/"),
        cni=options.cni_url.rstrip("/"),
        image_registry=options.image_registry.rstrip("/"),
        plain_registry=options.plain_registry,
    )
    request = choice.Request(options.version, options.provider, options.architecture, options.output, sources)
    try:
        if options.use is not None:
            directory = choice.use(options.use, options.version, options.architecture)
        else:
            directory = choice.obtain(request)
        say(choice.describe(directory))
    except (LabError, BundleError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
