"""What verbs cost from the start of the process to its end: CPU seconds, and their ratio to `import torch`.

python -m tools.bench.start TEXT_RUN IMAGE_RUN [--repeats 5]

The processes run in turn, each with one thread, and each is compared with the `import torch` of its own round.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.bench.timing import cpu_of, machine, median


def commands(text: str, image: str, folder: str) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Arguments of Python and environment, by name."""
    arlm = ["-m", "arlm"]
    sixteen = [*arlm, "sample", image, "-n", "16", "--out", str(Path(folder, "samples.png"))]
    one = ["sample", text, "--stream", "--max-new-tokens", "1"]
    return {
        "import torch": (["-c", "import torch"], {}),
        "arlm --help": ([*arlm, "--help"], {}),
        "arlm sample TEXT_RUN --stream, one token": ([*arlm, *one], {}),
        "arlm score TEXT_RUN LICENSE": ([*arlm, "score", text, "LICENSE"], {}),
        "arlm sample IMAGE_RUN -n 16": (sixteen, {}),
        "  ARLM_NATIVE=0": (sixteen, {"ARLM_NATIVE": "0"}),
        "  ARLM_NATIVE=1, compiled before": (sixteen, {"ARLM_NATIVE": "1"}),
    }


def main() -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", help="a run of text")
    parser.add_argument("image", help="a run of images")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        chosen = commands(options.text, options.image, folder)
        seconds: dict[str, list[float]] = {name: [] for name in chosen}
        for turn in range(options.repeats + 1):  # the first round fills caches
            for name, (arguments, environment) in chosen.items():
                used = cpu_of(arguments, **environment)
                if turn:
                    seconds[name].append(used)
    floor = seconds["import torch"]
    for name, found in seconds.items():
        ratio = median([a / b for a, b in zip(found, floor, strict=True)])
        print(f"{name:42}{median(found):6.2f} s{ratio:7.2f}")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(error.cmd)} failed:\n{error.stderr}")
