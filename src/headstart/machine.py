"""On what, and with what, a result was made."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LIBRARIES = ("headstart", "torch", "transformers", "tokenizers", "accelerate", "numpy", "pyarrow")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware(accelerator: str | None = None) -> dict[str, str | int]:
    """The processor, how many cores this process may use, and what else worked.

    Args:
        accelerator: Name of the one that held the models; None where the processor did.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {"processor": _processor(), "cores": cores or 1, "system": platform.system()}
    return {**found, "accelerator": accelerator} if accelerator else found


def told(made_on: Mapping[str, str | int]) -> str:
    """Write hardware, as `hardware` gives it, in a few words."""
    first = f"{made_on['accelerator']}; " if "accelerator" in made_on else ""
    return f"{first}{made_on['processor']}, {made_on['cores']} cores, {made_on['system']}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def commit() -> str | None:
    """The commit of the headstart checkout that runs; None where it is installed otherwise.

    An environment within another project's checkout is not that project's.
    """
    here = Path(__file__)
    try:
        _git("ls-files", "--error-unmatch", here.name, cwd=here.parent)
        return _git("rev-parse", "--short=12", "HEAD", cwd=here.parent) or None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        ["git", *words], cwd=cwd, capture_output=True, text=True, check=True, timeout=5
    )
    return done.stdout.strip()
