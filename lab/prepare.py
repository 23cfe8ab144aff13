"""Fill the cache with what tests and lab need, bundle and images, at once: `python -m lab.prepare`."""

import os
import sys

from lab import LabError, settings
from lab.up import prepare


def main() -> int:
    """Command line: no arguments; BUNDLE in the environment names a bundle made elsewhere."""
    os.chdir(settings.ROOT)
    try:
        made = prepare(settings.from_environment(), os.environ.get("BUNDLE") or None)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    for name, result in made.items():
        print(f"{name}: {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
