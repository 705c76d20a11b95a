"""The folder of a run: its version, its figures in metrics.csv, and a lock, so that one process writes it."""

from __future__ import annotations

import csv
import errno
import io
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from arlm.checkpoints.choose import named
from arlm.checkpoints.sharded import is_sharded
from arlm.errors import UserError
from arlm.storage import FolderLock, remove_abandoned, replace_file

WAIT = 10  # seconds
LAST = Path("checkpoints") / "last.ckpt"


class RunLogger(CSVLogger):
    """Lightning's CSVLogger, with these differences:

    - two runs that start at the same time get two versions, and no two processes write one version;
    - a run that continues in its folder keeps the rows up to the step that it continues from.

    The arguments are those of CSVLogger.
    """

    _lock: FolderLock | None = None
    _experiment: Any

    @property
    def version(self) -> int | str:
        if self._version is None:
            self._version = self._get_next_version()
            if first_process():
                self._version = claimed(Path(self.root_dir), self._version)
        return self._version

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            folder = Path(self.log_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = locked(folder)
            for part in (folder, folder / "checkpoints", folder / "samples"):
                remove_abandoned(part)
            self._experiment = RunWriter(str(folder))
        return self._experiment

    def __deepcopy__(self, _: Any) -> RunLogger:
        """Itself: callbacks that average weights copy the module with its trainer, but one folder has one lock."""
        return self

    def continue_from(self, step: int, validates: bool, within: bool = False) -> None:
        """Drop the rows of later steps, and those of this step's validation if it will be done again.

        Args:
            step: complete optimizer steps.
            validates: whether the run continues with a validation.
            within: whether it continues within a step, some of whose batches have been read.
        """
        if first_process():
            self.experiment.continue_from(step, validates, within)

    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._lock is not None:
            self._lock.release()


class RunWriter(ExperimentWriter):
    """Appends rows to a metrics.csv that may exist already."""

    def _check_log_dir_exists(self) -> None:
        """Keep the file that exists, which Lightning would remove."""
        self.metrics_keys = _columns(Path(self.metrics_file_path))

    def save(self) -> None:
        """Append the rows; a file whose columns become more is replaced as a whole."""
        if not self.metrics:
            return
        self._record_new_keys()
        path = Path(self.metrics_file_path)
        try:
            if _columns(path) != self.metrics_keys:
                self._replace([*_rows(path), *self.metrics])
            else:
                with path.open("a", newline="") as file:
                    csv.DictWriter(file, self.metrics_keys).writerows(self.metrics)
        except OSError as error:
            raise not_written("run", path, error) from None
        self.metrics = []

    def continue_from(self, step: int, validates: bool, within: bool) -> None:
        """Keep the rows up to a step; see `RunLogger.continue_from`."""
        path = Path(self.metrics_file_path)
        if path.exists():
            self._replace([row for row in _rows(path) if _kept(row, step, validates, within)])

    def _replace(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.metrics_keys)
        writer.writeheader()
        writer.writerows(rows)
        replace_file(self.metrics_file_path, text.getvalue().encode())


def _columns(path: Path) -> list[str]:
    """The columns of a file; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="", errors="replace") as file:
        return next(csv.reader(file), [])


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="", errors="replace") as file:
        return list(csv.DictReader(file))


def _kept(row: dict[Any, Any], step: int, validates: bool, within: bool) -> bool:
    """Whether a row is of an earlier step; a row that a kill has cut off is not.

    Lightning counts steps from 0, so the last complete one is `step - 1`. A validation within a step has the
    number of that step.
    """
    if None in row or None in row.values() or not (row.get("step") or "").isdigit():
        return False
    number = int(row["step"])
    if any(value for name, value in row.items() if name.startswith("val/")):
        last = step if within else step - 1
        return number < last if validates else number <= last
    return number < step


def first_process() -> bool:
    """Whether this is the process that writes; Lightning sets the rank when it is imported, or starts others."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def claimed(root: Path, version: int) -> int:
    """Make the folder of the first version from `version` on that no other process makes."""
    root.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            (root / f"version_{version}").mkdir()
        except FileExistsError:
            version += 1
        else:
            return version


def locked(folder: Path) -> FolderLock:
    """Lock a folder until the process ends.

    Raises:
        UserError: another process writes it.
    """
    for waited in range(WAIT + 1):
        with suppress(BlockingIOError):
            return FolderLock(folder)
        if waited < WAIT:
            time.sleep(1)  # workers of a run that was killed live for some seconds longer
    raise UserError(
        f"run: another process trains in '{folder}'; wait for it, or choose another --run-name"
    )


def not_written(field: str, path: Path, error: BaseException) -> UserError:
    """The error for a file of a run that could not be written."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    mend = "make room there" if full else "see that it can be written"
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0][:200]
    return UserError(f"{field}: cannot write '{path}' ({reason}); {mend}, and go on with --resume")


def last_of(path: str | Path) -> Path:
    """The checkpoint that `fit` continues: a file, or the last.ckpt of a version, or of a run's newest version.

    Raises:
        UserError: there is none.
    """
    path = named(path)
    if not path.is_dir() or is_sharded(path):
        return path  # whoever reads it says what is wrong with it
    for last in (path / LAST, path / LAST.name):
        if last.exists():
            return last
    return to_resume(path, "--ckpt_path")


def to_resume(folder: Path, option: str = "--resume") -> Path:
    """The last.ckpt of the newest version in the folder of a run's name.

    Raises:
        UserError: there is nothing to continue.
    """
    versions = {}
    for path in folder.glob("version_*"):
        number = path.name.removeprefix("version_")
        # `test` and `validate` make versions, too, but neither of these files.
        trained = (path / "run.json").exists() or (path / LAST).exists()
        if number.isdigit() and trained:
            versions[int(number)] = path
    if not versions:
        raise UserError(
            f"{option}: there is no run in '{folder}'; start it without {option}, or name it with --run-name"
        )
    newest = versions[max(versions)]
    if not (newest / LAST).exists():
        raise UserError(
            f"{option}: '{newest}' has no {LAST}: it ended before its first checkpoint; start the run again "
            f"without {option}, or continue another version with --ckpt_path FILE"
        )
    return newest / LAST


def version_of(last: Path) -> int:
    """The version whose last.ckpt `to_resume` returned."""
    return int(last.parent.parent.name.removeprefix("version_"))
