"""How long the program takes to say anything: help, import, and a check of a recipe.

    python benchmarks/start.py [RECIPE]

Each in a process of its own, best of three; `import torch` and `import transformers` beside them,
which `check` cannot do without.
"""

from __future__ import annotations

import subprocess
import sys
import time

ROUNDS = 3
PYTHON = [sys.executable, "-c"]


def best(command: list[str]) -> float:
    """Give the least seconds of a command."""
    found: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        found.append(time.perf_counter() - start)
    return min(found)


def main() -> None:
    """Time them, one after the other."""
    recipe = sys.argv[1] if len(sys.argv) > 1 else "quickstart"
    bare = best([*PYTHON, "pass"])
    ours = [sys.executable, "-m", "headstart"]
    for name, command in {
        "headstart --help": [*ours, "--help"],
        "import headstart": [*PYTHON, "import headstart"],
        f"headstart check {recipe}": [*ours, "check", recipe],
        "import torch": [*PYTHON, "import torch"],
        "import torch, AutoTokenizer": [
            *PYTHON, "import torch; from transformers import AutoTokenizer",
        ],
    }.items():  # fmt: skip
        print(f"{name}: {best(command):.2f} s, {bare:.2f} of them Python's own", flush=True)


if __name__ == "__main__":
    main()
