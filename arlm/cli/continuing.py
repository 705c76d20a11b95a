"""Which checkpoint the Trainer's verbs read, and which version of a run `fit --resume` continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arlm import checkpoints
from arlm.errors import UserError
from arlm.training.run_folder import last_of, to_resume, version_of

NAMED = ("best", "last", "hpc", "registry")  # checkpoints that Lightning finds by itself


def choose_checkpoint(fits: bool, config: Any, loggers: list[Any]) -> None:
    """Set `ckpt_path`, and for --resume the version of the loggers; verify the file.

    Args:
        fits: whether the verb is `fit`, which continues the last checkpoint of a run; others read the best one.
        config: of the verb.
        loggers: arguments of the loggers that write into a folder of the run's name.

    Raises:
        UserError: there is no such checkpoint, or it is damaged.
    """
    path = config.get("ckpt_path")
    resumes = fits and (config.resume or path == "last")
    if fits and config.resume and path not in (None, "last"):
        raise UserError(
            f"--ckpt_path: {path!r} given beside --resume, which finds last.ckpt by itself; choose one of them"
        )
    if resumes:
        config.resume = False  # whoever uses the saved configuration again starts a run
        if not loggers:
            raise UserError(
                "--resume: no logger writes into the folder of a run; continue with --ckpt_path FILE"
            )
        last = to_resume(Path(loggers[0].save_dir) / loggers[0].name)
        for arguments in loggers:
            arguments.version = version_of(last)
        config.ckpt_path = str(last)
    elif path and path not in NAMED:
        config.ckpt_path = str(last_of(path) if fits else checkpoints.find(path))
    if config.ckpt_path and config.ckpt_path not in NAMED:
        checkpoints.read(config.ckpt_path)
        checkpoints.verify_archive(config.ckpt_path)  # the optimizer's state too
