"""Bundles: Kubernetes as a directory that installs without the internet (docs/bundle.md)."""

from pathlib import Path


def find() -> Path:
    """The cached bundle of the lab's default version for this machine; made first when there is none.

    Raises LabError. The first call can take minutes; see lab.bundle.choice for what it does.
    """
    # Imported here: the choice imports every provider, and this package's other modules are light.
    from lab.bundle import choice

    return choice.obtain(choice.Request())
