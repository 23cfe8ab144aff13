"""Provider `debian`: Kubernetes v1.20.2 built from Debian 12's source package, with nothing but Debian's
archive.

Debian builds only kubectl from it, but the source has all of Kubernetes and its vendored dependencies. The
images that kubeadm wants are made from the built programs and from the files of Debian packages.
"""

import hashlib
import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plugins.module_utils.bundle import Artifact, Manifest

from lab import LabError, debs, once
from lab.bundle import docker_archive, layout
from lab.bundle.debian_source import PrivateApt, SourcePackage
from lab.bundle.progress import say, step

PROVIDER: Final = "debian"
VERSION: Final = "1.20.2"

# Raise it when the steps below change the result in a way that the other inputs of recipe() do not show.
_REVISION: Final = 1
_ASSETS: Final = Path(__file__).with_name("recipe")

_NODE_PROGRAMS: Final = ("kubeadm", "kubelet", "kubectl")
_IMAGE_PROGRAMS: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")

# Kubernetes 1.20 vendors reflect2 1.0.1, which reads runtime structures that changed in Go 1.18: programs
# built with it panic when they decode JSON. Debian's package has 1.0.2, which does not.
_GO: Final = "1.19"
_TOOLCHAIN: Final = (f"golang-{_GO}-go", f"golang-{_GO}-src", "golang-github-modern-go-reflect2-dev")

_CNI: Final = ("containernetworking-plugins",)
_ETCD: Final = ("etcd-server", "etcd-client", "libc6")
_KUBE_PROXY: Final = (
    *("iptables", "libip4tc2", "libip6tc2", "libxtables12", "libmnl0", "libnftnl11"),
    *("conntrack", "libnetfilter-conntrack3", "libnfnetlink0", "ipset", "libipset13"),
    *("libc6", "netbase", "busybox-static"),
)
# Not used by any program in the images: documentation, and glibc's character set converters.
_UNUSED: Final = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "usr/share/initramfs-tools",
)

_IPTABLES_NAMES: Final = tuple(
    f"{family}{verb}" for family in ("iptables", "ip6tables") for verb in ("", "-save", "-restore")
)
_BUSYBOX_NAMES: Final = ("sh", "cat", "grep", "ln", "ls", "mv", "rm", "sleep")

# What git archive wrote into the source for tag v1.20.2, and the day of the release (hack/lib/version.sh).
_STAMP: Final = {
    "gitVersion": f"v{VERSION}",
    "gitMajor": "1",
    "gitMinor": "20",
    "gitCommit": "faecb196815e248d3ecfb03c680a4507229c2a56",
    "gitTreeState": "archive",
    "buildDate": "2021-01-13T13:20:00Z",
}
_STAMPED_PACKAGES: Final = ("component-base/version", "client-go/pkg/version")

# Bytes: the source, toolchain and compiler cache take 2.6 GB, the bundle 0.6 GB.
_NEEDED_SPACE: Final = 4_000_000_000
_HEARTBEAT_SECONDS: Final = 20


@dataclass(frozen=True)
class _Workshop:
    """Directories of one build. They outlive a killed one: the next continues with the compiler's cache."""

    root: Path
    architecture: str

    @property
    def toolchain(self) -> Path:
        return self.root / "toolchain"

    @property
    def tree(self) -> Path:
        """The Kubernetes source, where GOPATH mode expects it."""
        return self.root / "gopath" / "src" / "k8s.io" / "kubernetes"

    @property
    def programs(self) -> Path:
        return self.root / "programs"

    def environment(self) -> dict[str, str]:
        """For the Go toolchain: nothing of the user's own Go settings, no network, no C compiler."""
        goroot = self.toolchain / "usr" / "lib" / f"go-{_GO}"
        temporary = self.root / "tmp"
        temporary.mkdir(exist_ok=True)
        return {
            "PATH": f"{goroot}/bin:{os.defpath}",
            "HOME": str(self.root),
            "TMPDIR": str(temporary),
            "LC_ALL": "C",
            "GOROOT": str(goroot),
            "GOPATH": str(self.root / "gopath"),
            "GOCACHE": str(self.root / "gocache"),
            "GO111MODULE": "off",
            "GOFLAGS": "-trimpath",
            "GOENV": "off",
            "GOARCH": self.architecture,
            "CGO_ENABLED": "0",
        }


def recipe() -> str:
    """Digest of everything in this repository that decides what the bundle contains."""
    digest = hashlib.sha256()
    inputs = [
        _REVISION,
        VERSION,
        _TOOLCHAIN,
        _CNI,
        _ETCD,
        _KUBE_PROXY,
        _UNUSED,
        _IPTABLES_NAMES,
        _BUSYBOX_NAMES,
        _STAMP,
    ]
    digest.update(json.dumps(inputs).encode())
    for asset in sorted(_ASSETS.iterdir()):
        digest.update(asset.name.encode() + b"\0" + asset.read_bytes())
    return digest.hexdigest()


def build(destination: Path, architecture: str) -> Path:
    """Make the bundle at `destination` unless one of the same recipe is there. Raises LabError."""
    wanted = recipe()

    def fill(directory: Path) -> None:
        workshop = _Workshop(destination.with_name(f".{destination.name}.work"), architecture)
        _check_space(destination.parent)
        say(
            f"building Kubernetes v{VERSION} for {architecture} from Debian's source package, about 9 CPU"
            " minutes"
        )
        started = time.monotonic()
        _make(workshop, directory, wanted)
        shutil.rmtree(workshop.root)
        say(f"bundle ready after {time.monotonic() - started:.0f} s")

    return once.make(destination, fill, lambda path: layout.made_by(path, PROVIDER, wanted))


def _check_space(directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if free < _NEEDED_SPACE:
        raise LabError(
            f"{directory} has {free // 10**6} MB free, and the build needs {_NEEDED_SPACE // 10**6} MB; make"
            " room or set TORTIE_CACHE to a directory on a larger disk."
        )


def _make(workshop: _Workshop, directory: Path, wanted: str) -> None:
    workshop.root.mkdir(exist_ok=True)
    with step("source package"):
        source = _unpack_source(workshop)
    with step("Go toolchain"):
        _fresh(workshop.toolchain)
        debs.unpack_packages(list(_TOOLCHAIN), workshop.toolchain)
        _replace_reflect2(workshop)
    with step("generated API definitions"):
        _generate_openapi(workshop)
    _compile(workshop)
    with step("programs and CNI plugins"):
        artifacts = [*_install_programs(workshop, directory), *_install_cni(workshop, directory)]
    with step("images"):
        artifacts += _make_images(workshop, directory)
    with step("manifest"):
        manifest = Manifest(
            name="kubernetes",
            version=VERSION,
            architecture=workshop.architecture,
            provider=PROVIDER,
            artifacts=tuple(artifacts),
            source=f"Debian source package {source.name} {source.version}",
            recipe=wanted,
        )
        layout.write_manifest(directory, manifest)


def _fresh(directory: Path) -> Path:
    """An empty directory, whatever a killed build left there."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    return directory


def _unpack_source(workshop: _Workshop) -> SourcePackage:
    apt = PrivateApt(workshop.root / "apt")
    apt.update()
    package = apt.find("kubernetes", VERSION)
    if workshop.tree.exists():
        shutil.rmtree(workshop.tree)
    workshop.tree.parent.mkdir(parents=True, exist_ok=True)
    apt.unpack(package, workshop.tree)
    return package


def _replace_reflect2(workshop: _Workshop) -> None:
    package = "github.com/modern-go/reflect2"
    vendored = _fresh(workshop.tree / "vendor" / package)
    for path in (workshop.toolchain / "usr/share/gocode/src" / package).iterdir():
        if path.suffix in (".go", ".s"):
            shutil.copy2(path, vendored)


def _go(workshop: _Workshop, *arguments: str) -> None:
    """Run the go command in the source tree; its messages go to a log that an error quotes."""
    log = workshop.root / "go.log"
    with log.open("wb") as stream:
        answer = subprocess.run(
            ["go", *arguments],
            cwd=workshop.tree,
            env=workshop.environment(),
            stdout=stream,
            stderr=stream,
            check=False,
        )
    if answer.returncode != 0:
        raise LabError(f"'go {arguments[0]}' failed; the end of {log}: {_tail(log)}")


def _tail(log: Path, characters: int = 1500) -> str:
    return log.read_text(errors="replace")[-characters:].strip()


def openapi_packages(tree: Path) -> list[str]:
    """Packages of the tree that ask for OpenAPI definitions, as the source's own makefile selects them."""
    roots = [tree / "pkg", tree / "cmd", tree / "plugin", *sorted((tree / "vendor" / "k8s.io").iterdir())]
    skipped = ("code-generator", "sample-apiserver", "sample-cli-plugin", "sample-controller")
    found = set()
    for root in roots:
        if root.name in skipped or not root.is_dir():
            continue
        # vendor/k8s.io/* are links into staging/, which rglob follows at its root only.
        for path in root.rglob("*.go"):
            if b"\n// +k8s:openapi-gen=" in path.read_bytes() and not path.name.endswith("_test.go"):
                found.add(str(path.parent.relative_to(tree)))
    return sorted(found)


def _generate_openapi(workshop: _Workshop) -> None:
    """Write the one generated file that the source package lacks (pkg/generated/openapi).

    The generator also reports violations of the API rules. The source lists the known ones, so an equal
    report proves that the selection of packages was the same as at the release.
    """
    tools = _fresh(workshop.root / "tools")
    _go(workshop, "build", "-o", f"{tools}/", "./vendor/k8s.io/kube-openapi/cmd/openapi-gen")
    prefix = "k8s.io/kubernetes"
    report = tools / "violations"
    packages = ",".join(f"{prefix}/{package}" for package in openapi_packages(workshop.tree))
    command = [
        str(tools / "openapi-gen"),
        "--logtostderr",
        "-i",
        packages,
        "-p",
        f"{prefix}/pkg/generated/openapi",
    ]
    command += ["-O", "zz_generated.openapi", "-h", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt"]
    command += ["-r", str(report)]
    answer = subprocess.run(
        command, cwd=workshop.tree, env=workshop.environment(), capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise LabError(f"openapi-gen failed: {answer.stderr.strip()[-1500:]}")
    known = workshop.tree / "api" / "api-rules" / "violation_exceptions.list"
    if report.read_bytes() != known.read_bytes():
        raise LabError(
            f"openapi-gen's report {report} differs from {known}: the source package has changed in a way"
            " that this recipe does not know; use a bundle made elsewhere (BUNDLE=directory)."
        )


def _linker_flags() -> str:
    """Strip debugging symbols, stamp the version."""
    stamps = [
        f"-X k8s.io/kubernetes/vendor/k8s.io/{package}.{name}={value}"
        for package in _STAMPED_PACKAGES
        for name, value in _STAMP.items()
    ]
    return " ".join(["-s", "-w", *stamps])


def _compile(workshop: _Workshop) -> None:
    crictl = workshop.tree / "cmd" / "crictl"
    crictl.mkdir(exist_ok=True)
    shutil.copy(_ASSETS / "crictl.go", crictl / "main.go")
    _fresh(workshop.programs)
    targets = [f"./cmd/{program}" for program in (*_NODE_PROGRAMS, *_IMAGE_PROGRAMS, "crictl")]
    command = ["go", "build", "-v", "-ldflags", _linker_flags(), "-o", f"{workshop.programs}/", *targets]
    log = workshop.root / "compile.log"
    with step(f"compile {len(targets)} programs") as still, log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=workshop.tree, env=workshop.environment(), stdout=stream, stderr=stream
        )
        try:
            while True:
                try:
                    status = process.wait(_HEARTBEAT_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    # With -v, go names each package that it compiled on a line.
                    still(f"{len(log.read_bytes().splitlines())} packages")
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if status != 0:
            raise LabError(f"the compiler failed (exit {status}); the end of {log}: {_tail(log)}")
    with step("pause container"):
        _compile_pause(workshop)


def _compile_pause(workshop: _Workshop) -> None:
    command = [
        "gcc",
        "-Wall",
        "-Os",
        "-s",
        "-static",
        "-o",
        str(workshop.programs / "pause"),
        str(_ASSETS / "pause.c"),
    ]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LabError("gcc is not installed; install the packages gcc and libc6-dev.") from error
    if answer.returncode != 0:
        raise LabError(
            f"gcc failed; are the packages gcc and libc6-dev installed? {answer.stderr.strip()[-500:]}"
        )


def _install(source: Path, destination: Path) -> Path:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)
    destination.chmod(0o755)
    return destination


def _install_programs(workshop: _Workshop, directory: Path) -> list[Artifact]:
    programs = (*_NODE_PROGRAMS, "crictl")
    paths = [_install(workshop.programs / name, directory / "bin" / name) for name in programs]
    return [layout.describe_file(directory, path) for path in paths]


def _install_cni(workshop: _Workshop, directory: Path) -> list[Artifact]:
    unpacked = _fresh(workshop.root / "cni")
    debs.unpack_packages(list(_CNI), unpacked)
    plugins = sorted(path for path in (unpacked / "usr/lib/cni").iterdir() if path.is_file())
    paths = [_install(path, directory / "bin" / "cni" / path.name) for path in plugins]
    return [layout.describe_file(directory, path) for path in paths]


def _image_references(workshop: _Workshop) -> dict[str, str]:
    """What the built kubeadm wants, by name: {"pause": "k8s.gcr.io/pause:3.2", ...}."""
    command = [
        str(workshop.programs / "kubeadm"),
        "config",
        "images",
        "list",
        "--kubernetes-version",
        f"v{VERSION}",
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise LabError(f"the built kubeadm does not run: {answer.stderr.strip()[-500:]}")
    return {reference.rsplit("/", 1)[-1].partition(":")[0]: reference for reference in answer.stdout.split()}


def _make_images(workshop: _Workshop, directory: Path) -> list[Artifact]:
    """Archives of all images that kubeadm wants except CoreDNS, which Debian does not have."""
    references = _image_references(workshop)
    roots = {name: _program_root(workshop, name) for name in _IMAGE_PROGRAMS if name != "kube-proxy"}
    roots["kube-proxy"] = _kube_proxy_root(workshop)
    roots["etcd"] = _etcd_root(workshop)
    roots["pause"] = _fresh(workshop.root / "image-pause")
    _install(workshop.programs / "pause", roots["pause"] / "pause")
    (directory / "images").mkdir()
    artifacts = []
    for name, root in roots.items():
        reference = references[name]
        config = docker_archive.ImageConfig(
            architecture=workshop.architecture,
            path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            entrypoint=("/pause",) if name == "pause" else (),
        )
        archive = directory / "images" / layout.image_filename(reference)
        image_id = docker_archive.write(archive, reference, root, config)
        artifacts.append(layout.describe_image(directory, archive, reference, image_id))
    return artifacts


def _program_root(workshop: _Workshop, name: str) -> Path:
    """Files of an image that holds one static program, at the place where the official image has it."""
    root = _fresh(workshop.root / f"image-{name}")
    for path in ("etc", "run", "tmp", "var/lib"):
        (root / path).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    _install(workshop.programs / name, root / "usr/local/bin" / name)
    return root


def _unpack_into_image(packages: tuple[str, ...], root: Path) -> None:
    debs.unpack_packages(list(packages), root)
    for unused in _UNUSED:
        shutil.rmtree(root / unused, ignore_errors=True)
    for converters in root.glob("usr/lib/*/gconv"):
        shutil.rmtree(converters)


def _etcd_root(workshop: _Workshop) -> Path:
    root = _fresh(workshop.root / "image-etcd")
    _unpack_into_image(_ETCD, root)
    for name in ("etcd", "etcdctl"):
        _install(root / "usr/bin" / name, root / "usr/local/bin" / name)
        (root / "usr/bin" / name).unlink()
    _check_libraries(root, ["usr/local/bin/etcd", "usr/local/bin/etcdctl"])
    return root


def _kube_proxy_root(workshop: _Workshop) -> Path:
    """kube-proxy with iptables in both variants and what it calls: conntrack, ipset, a shell for people."""
    root = _program_root(workshop, "kube-proxy")
    _unpack_into_image(_KUBE_PROXY, root)
    for name in _BUSYBOX_NAMES:
        (root / "bin" / name).symlink_to("busybox")
    _install(_ASSETS / "iptables-wrapper.sh", root / "usr/sbin/iptables-wrapper")
    for name in _IPTABLES_NAMES:
        (root / "usr/sbin" / name).symlink_to("iptables-wrapper")
    _check_libraries(
        root,
        [f"usr/sbin/{name}" for name in ("xtables-nft-multi", "xtables-legacy-multi", "conntrack", "ipset")],
    )
    return root


def _check_libraries(root: Path, programs: list[str]) -> None:
    """Let the image's own dynamic loader find the programs' libraries in the image. Raises LabError."""
    loaders = sorted(root.glob("lib/*-linux-gnu*/ld-linux-*.so.*"))
    if not loaders:
        raise LabError(
            f"{root} has no dynamic loader; the package libc6 has changed in a way that this recipe does"
            " not know."
        )
    search = ":".join(
        str(path) for pattern in ("lib/*-linux-gnu*", "usr/lib/*-linux-gnu*") for path in root.glob(pattern)
    )
    for program in programs:
        command = [str(loaders[0]), "--library-path", search, "--list", str(root / program)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        missing = "not found" in answer.stdout + answer.stderr
        if missing or (answer.returncode != 0 and "statically linked" not in answer.stdout + answer.stderr):
            raise LabError(
                f"{program} lacks a library in its image: {(answer.stdout + answer.stderr).strip()[-500:]}"
            )
