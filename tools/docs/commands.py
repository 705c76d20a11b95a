"""Run the commands of pages, each page in an empty folder of its own, in order, as a reader would.

    python -m tools.docs.commands                     all pages
    python -m tools.docs.commands docs/quick-start.md README.md

Training is cut short, unless the command says itself how long it trains. What a page needs it makes itself,
by commands that it shows: no file is put into its folder but those of its blocks with a caption. (README.md
and pages that begin with `<!-- in a clone -->` are run in a folder that looks like a clone.)
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.docs.blocks import Block, blocks, pages
from tools.docs.server import write_clients

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 300  # seconds for a command
CLONE = "<!-- in a clone -->"
IN_CLONE = ("arlm", "configs", "datamodules", "examples", "tools", "README.md", "ARCHITECTURE.md")
# What `.ci/run` and the Makefile run: a clone, an environment, the installation.
SETUP = ("git ", "cd ", "make ", "pip ", "python -m venv ", "python -m pip ")
SHORT = [
    *("--trainer.max_epochs", "-1", "--trainer.check_val_every_n_epoch", "null"),
    *("--trainer.max_steps", "4", "--trainer.val_check_interval", "2", "--samples.n", "1"),
]
PUBLISHED = ("mnist", "multi30k", "shakespeare", "wikitext", "sst2")  # of ARLM_DATA_DIR


class Failed(Exception):
    """A command that did not do what its page says."""


def shortened(command: str) -> str:
    """The command with its training cut short, unless it says itself how long it is."""
    words = shlex.split(command, comments=True)
    own = any(word.startswith(("--trainer.max_", "--trainer.fast_dev_run")) for word in words)
    if own or not re.match(r"(python -m )?arlm fit ", command):
        return command
    more = [*SHORT, *(("--trainer.limit_val_batches", "1") if needs_published(command) else ())]
    # After --config, since what comes later counts, and before a comment, a pipe or a redirection.
    own_part, rest = re.fullmatch(r"(.*?)(\s+(?:[#|>&]|2>).*)?", command, flags=re.S).groups("")  # type: ignore[union-attr]
    return f"{own_part} {' '.join(more)}{rest}"


def needs_published(command: str) -> bool:
    """Whether a command reads data of $ARLM_DATA_DIR."""
    return any(name in command for name in PUBLISHED)


def is_setup(command: str) -> bool:
    """Whether `.ci/run` runs the command, or one of the Makefile's targets."""
    return command.startswith(SETUP)


class Runner:
    """Runs pages with clients of one server.

    Args:
        folder: for the clients and for the folder of each page.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, clients = folder, folder / "bin"
        clients.mkdir()
        address = write_clients(clients)
        self.environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            # The scripts of this environment (torchrun), which need not be activated.
            "PATH": os.pathsep.join(
                [str(clients), str(Path(sys.executable).parent), os.environ["PATH"]]
            ),
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "MPLBACKEND": "agg",
        }
        serve = [sys.executable, "-m", "tools.docs.server", str(address)]
        self.server = subprocess.Popen(serve, cwd=ROOT, env=self.environment)
        deadline = time.monotonic() + LIMIT
        while not address.exists():
            if time.monotonic() > deadline or self.server.poll() is not None:
                raise Failed("the server did not start")
            time.sleep(0.05)

    def close(self) -> None:
        """End the server."""
        self.server.kill()
        self.server.wait()

    def page(self, page: Path, quiet: bool = True) -> tuple[int, int]:
        """Run a page; returns how many commands were run, and how many are set-up."""
        folder = self.folder / str(page.relative_to(ROOT)).replace("/", "-").removesuffix(".md")
        folder.mkdir()
        environment = self.environment
        if page.name == "README.md":
            for name in IN_CLONE:
                (folder / name).symlink_to(ROOT / name)
            (folder / "docs").mkdir()
        elif page.read_text(encoding="utf-8").startswith(CLONE):
            # The page changes files of the clone, so it gets copies, and processes that import these.
            for name in (*IN_CLONE, "tests", "pyproject.toml"):
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, folder / name)
            _, _, without_clients = environment["PATH"].partition(os.pathsep)
            environment = environment | {"PATH": without_clients, "PYTHONPATH": str(folder)}
        ran = setup = 0
        for block in blocks(page):
            if block.language == "file":
                file = folder / block.name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text)
            for command in block.commands:
                if block.language == "bash" and is_setup(command):
                    setup += 1
                    continue
                self.command(page, block, command, folder, environment, quiet)
                ran += 1
        return ran, setup

    def command(
        self,
        page: Path,
        block: Block,
        command: str,
        folder: Path,
        environment: dict[str, str],
        quiet: bool,
    ) -> None:
        """Run one command or one program in the folder of its page."""
        started = time.perf_counter()
        if block.language == "python":
            program = folder / f".block-{block.line}.py"
            program.write_text(command)
            given, shown = f"python {program.name}", f"python, line {block.line}"
        else:
            given, shown = shortened(command), command
        bash = ["bash", "-e", "-o", "pipefail", "-c", given]
        where = f"{page.relative_to(ROOT)}:{block.line}"
        try:
            done = subprocess.run(
                bash,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{where}: more than {LIMIT} s: {shown}") from None
        print(f"{time.perf_counter() - started:6.1f} s  {where}  {shown}", flush=True)
        if not quiet:
            print(done.stdout, done.stderr, sep="\n")
        if done.returncode:
            raise Failed(f"{where}: exit {done.returncode}: {shown}\n{done.stdout}\n{done.stderr}")


def found_in(page: Path) -> int:
    """Commands of a page, counted line by line: a second opinion on `Block.commands`."""
    count, language, continued = 0, "", False
    for line in page.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if not language and text in ("```bash", "```python"):
            language, count = text[3:], count + (text == "```python")
        elif text.startswith("```{literalinclude}") and text.endswith(".py"):
            count += 1
        elif language and text == "```":
            language = ""
        elif language == "bash":
            count += bool(text) and not continued and not text.startswith("#")
            continued = text.endswith("\\")
    return count


def main() -> None:
    """Run pages, and compare the number of commands with what was run."""
    parser = argparse.ArgumentParser(description="Run the commands of the documentation.")
    parser.add_argument("pages", nargs="*", type=Path, help="by default README.md and all of docs/")
    parser.add_argument("--jobs", type=int, default=2, help="pages at a time (default 2)")
    parser.add_argument("--verbose", action="store_true", help="print what the commands print")
    options = parser.parse_args()
    chosen = [page.resolve() for page in options.pages] or pages(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(Path(folder))
        failures: list[str] = []

        def run(page: Path) -> tuple[int, int]:
            try:
                return runner.page(page, not options.verbose)
            except Failed as error:  # the other pages are run nevertheless
                failures.append(str(error))
                return 0, 0

        try:
            with ThreadPoolExecutor(options.jobs) as pool:
                results = list(pool.map(run, chosen))
        finally:
            runner.close()
    if failures:
        sys.exit("\n".join(failures))
    ran, setup = (sum(result[i] for result in results) for i in (0, 1))
    found = sum(found_in(page) for page in chosen)
    print(f"{found} commands found, {ran} run here, {setup} by .ci/run, in {len(chosen)} pages")
    if found != ran + setup:
        sys.exit("some commands were not run")


if __name__ == "__main__":
    main()
