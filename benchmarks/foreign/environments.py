"""A virtual environment for each case, with its package and stagewise in it."""

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALL_SECONDS = 1800


def tested_torch() -> str:
    """The release of torch that stagewise's own tests run with, which has a CPU build."""
    found = re.search(r"^torch==\S+", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError("got constraints.txt without a line torch==...; expected the pin that the tests run with")
    return found[0]


def environment(folder: Path, requires: tuple[str, ...], base: Path | None) -> Path:
    """Make the environment of a case, or take the one that is there for the same packages.

    Args:
        folder: of the environment.
        requires: what to install beside stagewise; its own ``torch==...`` goes before the tested one.
        base: a virtual environment whose packages the new one sees, to save time and disk; what does not fit is
            installed anew. None for one that stands alone.

    Returns:
        Its Python.

    Raises:
        RuntimeError: pip cannot install it, in its words.
    """
    python = folder / "bin" / "python"
    stamp = folder / "installed.txt"
    torch = [require for require in requires if re.match(r"torch==", require)] or [tested_torch()]
    wanted = "\n".join([*torch, *requires, f"base {base}"])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    if base is not None:
        packages = sysconfig.get_path("purelib", "venv", {"base": str(base)})
        own = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
        (own / "base.pth").write_text(f"{packages}\n")
    # Torch first and alone: an open range may bring another build, with gigabytes of CUDA.
    _pip(python, *torch)
    _pip(python, "-e", str(REPOSITORY), *torch, *(require for require in requires if require not in torch))
    stamp.write_text(wanted)
    return python


def version(python: Path, distribution: str) -> str:
    """Version of an installed distribution."""
    code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise RuntimeError(" ".join(errors or done.stderr.splitlines()[-3:]))
