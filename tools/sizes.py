"""Megabytes of the wheel and of what an installation brings along, by extra.

python -m tools.sizes [--no-wheel]

The packages are those that are installed where this runs: each that arlm requires, with or without an extra, and
what those require in turn. Their files are counted as they are on disk, without the `.pyc` files that Python adds.
The wheel is built in a temporary folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXTRAS = ("", "native", "dev", "docs")
MEGABYTE = 1e6


def closure(package: str, extras: set[str]) -> dict[str, Distribution]:
    """A package and all that it requires here, by name; what is not installed is left out."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(package, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        for line in found[name].requires or ():
            required = Requirement(line)
            marker = required.marker
            if marker is None or marker.evaluate({"extra": extra}):
                needed = canonicalize_name(required.name)
                waiting += [(needed, more) for more in ("", *required.extras)]
    return found


def size(package: Distribution) -> int:
    """Bytes of a package's files on disk."""
    paths = {Path(str(package.locate_file(file))).resolve() for file in package.files or ()}
    return sum(path.stat().st_size for path in paths if path.suffix != ".pyc" and path.is_file())


def wheel_size() -> int:
    """Bytes of the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, str(ROOT)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(folder).glob("*.whl")
        return wheel.stat().st_size


def main() -> None:
    """Print the size of the wheel, then a line for each extra with its largest packages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-wheel", action="store_true", help="build no wheel")
    options = parser.parse_args()
    if not options.no_wheel:
        print(f"wheel {wheel_size() / MEGABYTE:.2f} MB")
    sizes: dict[str, int] = {}
    for extra in EXTRAS:
        packages = closure("arlm", {extra} - {""})
        sizes |= {name: size(one) for name, one in packages.items() if name not in sizes}
        largest = sorted(packages, key=lambda name: -sizes[name])[:4]
        total = sum(sizes[name] for name in packages)
        shown = ", ".join(f"{name} {sizes[name] / MEGABYTE:,.0f}" for name in largest)
        title = f"arlm[{extra}]" if extra else "arlm"
        print(f"{title:13} {len(packages):4} packages {total / MEGABYTE:7,.0f} MB: {shown}")
        accelerator = ("nvidia-", "cuda-", "triton")
        without = sum(sizes[n] for n in packages if not n.startswith(accelerator) and n != "torch")
        print(f"{'':13} {without / MEGABYTE:,.0f} MB without torch and its CUDA libraries")


if __name__ == "__main__":
    main()
