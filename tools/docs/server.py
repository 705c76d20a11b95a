"""A process that has imported arlm once, and forks for each command: imports cost more than most commands.

    bash ── arlm fit ...  (a small client on the PATH) ──socket: arguments, folder, 0 1 2──> server ── fork ──> main()

The client passes its standard streams, so that pipes and redirections of bash work as they do for a reader.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path

CLIENT = """#!{python} -SE
import json, os, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({address!r})
message = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(link, [len(message).to_bytes(8, "big")], [0, 1, 2])
link.sendall(message)
sys.exit(int(link.recv(8) or b"1"))
"""


def write_clients(folder: Path) -> Path:
    """Write the clients `arlm` and `python` into `folder`; returns the address of the server."""
    address = folder / "socket"
    for name in ("arlm", "python"):
        client = folder / name
        client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
        client.chmod(0o755)
    return address


def serve(address: Path) -> None:
    """Answer clients until the process is killed."""
    _import_once()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen(16)
    while True:
        link, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _answer(link)
        link.close()


def _import_once() -> None:
    """Import what most commands need; only what is arlm's own, and no data is touched."""
    for name in ("arlm.__main__", "arlm.cli.trainer", "matplotlib.pyplot", "sklearn.datasets"):
        importlib.import_module(name)


def _answer(link: socket.socket) -> None:
    """Run the command of one client in this forked process; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, streams, *_ = socket.recv_fds(link, 8, 3)
    size, content = int.from_bytes(header, "big"), b""
    while len(content) < size:
        part = link.recv(size - len(content))
        if not part:  # the client was killed
            os._exit(1)
        content += part
    arguments, folder, environment = json.loads(content)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  (the one of before was made for another kind of file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    code = _run(arguments)
    for output in (sys.stdout, sys.stderr):
        with suppress(OSError):
            output.flush()
    link.sendall(str(code).encode())
    os._exit(code)


def _run(arguments: list[str]) -> int:
    """Run `arlm ...` or `python ...`; returns the exit code."""
    name = Path(arguments[0]).name
    # Lightning starts further processes like this one by the arguments, not by the module's name.
    sys.modules["__main__"].__spec__ = None
    try:
        if name == "arlm":
            sys.argv = arguments
            from arlm.__main__ import entry

            entry()
        elif arguments[1] == "-m":
            sys.argv = arguments[2:]
            sys.path.insert(0, os.getcwd())
            if arguments[2] == "arlm":
                from arlm.__main__ import entry

                entry()
            runpy.run_module(arguments[2], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments[1:]
            sys.path.insert(0, str(Path(arguments[1]).resolve().parent))
            runpy.run_path(arguments[1], run_name="__main__")
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
            return 1
        return error.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
