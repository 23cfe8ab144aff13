"""Build the network's image and save it as an archive: `python -m lab.image` prints the archive's path last.

Beside `<archive>` stands `<archive>.json` with `name` (image name with tag), `image_id` and `sha256`.
The archive is named by the content of what goes into it; when the cache has it, nothing is built.

The base image is, in this order: $TORTIE_BASE_IMAGE; Debian's slim image from a registry; a minimal Debian
made by mmdebstrap from the machine's apt sources, when no registry answers.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from lab import LabError, cache, once, podman, rootfs

ROOT = Path(__file__).resolve().parent.parent
CONTAINERFILE = ROOT / "deploy" / "Containerfile"
PYPROJECT = ROOT / "pyproject.toml"
SOURCE = ROOT / "src" / "tortie"

ARCHIVES_KEPT = 3
PULL_TIMEOUT = 180.0
# The interpreter of the base image (Debian 12): wheels are chosen for the Python that runs pip.
IMAGE_PYTHON = (3, 11)


class ImageError(LabError):
    """The image cannot be built; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An image archive as it stands in the cache."""

    path: Path
    name: str
    built: bool


def project_version(pyproject: str) -> str:
    """The project's version, from the text of pyproject.toml."""
    return str(tomllib.loads(pyproject)["project"]["version"])


def project_dependencies(pyproject: str) -> list[str]:
    """The project's run-time requirements, from the text of pyproject.toml."""
    return [str(item) for item in tomllib.loads(pyproject)["project"]["dependencies"]]


def build_requirements(pyproject: str) -> list[str]:
    """What building the project's wheel needs, from the text of pyproject.toml."""
    return [str(item) for item in tomllib.loads(pyproject)["build-system"]["requires"]]


def containerfile_packages(text: str) -> list[str]:
    """Debian packages that a Containerfile installs: the default of its argument PACKAGES."""
    match = re.search(r'^ARG PACKAGES="([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise ImageError(
            f'{CONTAINERFILE} has no line `ARG PACKAGES="..."`; the base image is made from that list.'
        )
    return match[1].split()


def default_base(text: str) -> str:
    """The base image that a Containerfile names: the default of its argument BASE."""
    match = re.search(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    if match is None:
        raise ImageError(f"{CONTAINERFILE} has no line `ARG BASE=<image>`.")
    return match[1]


def content_digest(base_id: str) -> str:
    """Digest of everything that decides what the image is."""
    sources = cache.tree_digest([SOURCE, PYPROJECT, CONTAINERFILE], ROOT)
    return cache.digest([base_id, sources])


def base_image() -> str:
    """A base image that the project's store holds; see the module's docstring for the choice."""
    text = CONTAINERFILE.read_text()
    asked = os.environ.get("TORTIE_BASE_IMAGE")
    if asked:
        if not podman.image_exists(asked):
            podman.run("pull", "--quiet", asked, timeout=PULL_TIMEOUT)
        return asked
    packages = containerfile_packages(text)
    # A base made earlier decides before the registry does: asking costs seconds where there is none.
    own = rootfs.expected("base", packages)
    name = f"localhost/tortie-rootfs:{own.stem}"
    if podman.image_exists(name):
        return name
    if not own.exists():
        public = default_base(text)
        try:
            podman.run("pull", "--quiet", public, timeout=PULL_TIMEOUT)
        except podman.PodmanError:
            print(
                f"No registry gives {public}: making the base image from the machine's apt sources.",
                flush=True,
            )
        else:
            return public
    podman.import_rootfs(rootfs.ensure("base", packages), name)
    return name


def _pip(*arguments: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        tail = "\n".join(result.stderr.splitlines()[-10:])
        raise ImageError(f"pip {' '.join(arguments)} failed:\n{tail}")


def wheelhouse(name: str, requirements: list[str]) -> Path:
    """A folder with wheels of `requirements` and all that they need; made when the cache does not hold it."""
    digest = cache.digest([*map(str, IMAGE_PYTHON), *requirements])
    return once.make(
        cache.directory("wheelhouse") / f"{name}-{digest}",
        lambda folder: _pip("wheel", "--wheel-dir", str(folder), *requirements),
    )


def _build_project_wheel(target: Path) -> None:
    """A wheel of the project in `target`. Built from a copy: setuptools would leave files in the checkout."""
    tools = wheelhouse("build", [*build_requirements(PYPROJECT.read_text()), "wheel"])
    with tempfile.TemporaryDirectory(prefix="tortie-wheel-") as folder:
        tree = Path(folder)
        shutil.copytree(SOURCE, tree / "src" / "tortie", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PYPROJECT, tree)
        # pyproject.toml names a README; its text is no part of the image, so it should not cause a new one.
        (tree / "README.md").write_text("Tortie\n")
        _pip(
            "wheel",
            "--no-deps",
            "--no-index",
            "--find-links",
            str(tools),
            "--wheel-dir",
            str(target),
            str(tree),
        )


def _build(name: str, base: str) -> None:
    with tempfile.TemporaryDirectory(prefix="tortie-image-") as folder:
        context = Path(folder)
        dependencies = wheelhouse("dependencies", project_dependencies(PYPROJECT.read_text()))
        shutil.copytree(dependencies, context / "wheels" / "dependencies")
        _build_project_wheel(context / "wheels" / "project")
        podman.run(
            *(
                "build",
                "--quiet",
                "--network",
                "host",
                "--isolation",
                "chroot",
                "--build-arg",
                f"BASE={base}",
            ),
            *("--file", str(CONTAINERFILE), "--tag", name, str(context)),
        )


def _save(name: str, path: Path) -> None:
    """Write the archive and its description; the description, written last, makes the archive complete."""
    partial = path.with_suffix(f".partial-{os.getpid()}")
    partial.unlink(missing_ok=True)
    podman.run("save", "--quiet", "--format", "docker-archive", "--output", str(partial), name)
    with partial.open("rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    image_id = podman.run("image", "inspect", "--format", "{{.Id}}", name)
    partial.rename(path)
    description = {"name": name, "image_id": image_id, "sha256": sha256}
    _description(path).write_text(json.dumps(description, indent=2) + "\n")


def _description(archive: Path) -> Path:
    return archive.with_name(archive.name + ".json")


def _drop_old(folder: Path, keep: Path) -> None:
    """Leave the newest archives, and the image of each, in the cache."""
    for old in [a for a in cache.newest_first(folder.glob("tortie-node-*.tar")) if a != keep][
        ARCHIVES_KEPT - 1 :
    ]:
        description = _description(old)
        if description.exists():
            name = json.loads(description.read_text())["name"]
            if podman.image_exists(name):
                podman.run("rmi", name)
            description.unlink()
        old.unlink()


def ensure() -> Archive:
    """The archive of the image as the source stands now."""
    if sys.version_info[:2] != IMAGE_PYTHON:
        wanted = ".".join(map(str, IMAGE_PYTHON))
        raise ImageError(
            f"{sys.executable} is Python {sys.version.split()[0]}, but the image needs wheels for "
            f"Python {wanted}; run it with .venv/bin/python as lab/deps.sh makes it."
        )
    folder = cache.directory("images")
    with cache.exclusive("network-image"):
        cache.drop_partials(folder, "tortie-node-")
        base = base_image()
        digest = content_digest(podman.run("image", "inspect", "--format", "{{.Id}}", base))
        path = folder / f"tortie-node-{digest}.tar"
        name = f"localhost/tortie-node:{project_version(PYPROJECT.read_text())}-{digest}"
        complete = path.exists() and _description(path).exists()
        if complete:
            os.utime(path)
        else:
            _build(name, base)
            _save(name, path)
        _drop_old(folder, path)
    return Archive(path, name, not complete)


def main() -> int:
    """Command line: no arguments. The last line of standard output is the archive's path."""
    try:
        archive = ensure()
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{'built' if archive.built else 'cached'}: {archive.name}")
    print(archive.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
