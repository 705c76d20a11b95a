"""The Trainer's commands fit, validate, test and predict, built on LightningCLI."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys
import traceback
import warnings
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from jsonargparse import Namespace, set_parsing_settings
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import arlm.adapters
import arlm.models
from arlm.cli.continuing import choose_checkpoint
from arlm.cli.messages import missing_package, one_line
from arlm.cli.names import expand, expand_configurations, known_names
from arlm.cli.run_names import check_name, given_options, may_rename, run_name
from arlm.cli.values import check_values
from arlm.core import Spec
from arlm.data.module import TokenDataModule
from arlm.errors import UserError
from arlm.inference.runs import read_with_tokens_of
from arlm.training.callbacks import SaveRun, ValidateLastStep, WriteSamples
from arlm.training.checkpointing import RunCheckpoint
from arlm.training.interrupts import Interrupted, interrupts
from arlm.training.module import AutoregressiveModule
from arlm.training.progress import Bar, LineProgress
from arlm.training.rendezvous import meet_interruptibly
from arlm.training.report import RunReport
from arlm.training.run_folder import first_process
from arlm.training.sharding import check_sharding

TRAINER_DEFAULTS: dict[str, Any] = {
    "accelerator": "auto",
    "devices": 1,
    "logger": {
        "class_path": "arlm.training.run_folder.RunLogger",
        "init_args": {"save_dir": "runs"},
    },
    "plugins": {"class_path": "arlm.training.callbacks.AtomicCheckpointIO"},
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 25,
    "use_distributed_sampler": False,  # TokenDataModule divides batches among processes itself
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}
OBJECTIVE = "objective"  # as checkpoint.monitor: the figure that the objective names
PRETRAINED = ("arlm.adapters.pretrained", "arlm.adapters.pretrained.pretrained")
CHECKPOINT_DEFAULTS = {
    "checkpoint.monitor": OBJECTIVE,
    "checkpoint.filename": "best",
    "checkpoint.save_last": True,
    "checkpoint.save_on_exception": True,
    "checkpoint.enable_version_counter": False,
}


class Command(LightningCLI):
    """LightningCLI with arlm's defaults; the data gives the model its spec and its domain."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data", "model.spec", self._spec, apply_on="instantiate")
        parser.link_arguments("data.domain", "model.domain", apply_on="instantiate")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_lightning_class_args(WriteSamples, "samples")
        parser.add_argument(
            "--run-name",
            type=str | None,
            help="folder below runs/; by default the configuration's name, and what was changed in network or data",
        )
        parser.add_argument(
            "--tensorboard",
            action="store_true",
            help="also write figures and samples for TensorBoard; watch with `tensorboard --logdir runs`",
        )
        parser.add_argument(
            "--trust",
            action="append",
            default=[],
            metavar="MODULE",
            help="a module, package or FILE.py whose classes the checkpoints of `pretrained` and `Distillation` may name, "
            "beside arlm's own; repeat the option for several",
        )
        parser.set_defaults(CHECKPOINT_DEFAULTS)
        parser.set_defaults(
            {"model.objective": {"class_path": "arlm.training.objectives.Likelihood"}}
        )

    def before_instantiate_classes(self) -> None:
        """Name the run, and check the checkpoint before any work."""
        config = self.config[self.subcommand]
        trust(config, config.trust)
        given = config.trainer.logger
        loggers = given if isinstance(given, list) else [given]
        found: list[Any] = [getattr(logger, "init_args", {}) for logger in loggers]
        named = [arguments for arguments in found if "name" in arguments]
        if config.get("run_name") and not named:
            raise UserError(
                f"--run-name: {config.run_name!r} given, but no logger writes into a folder of that name; "
                "omit it, or --trainer.logger"
            )
        for arguments in named:
            if config.get("run_name"):
                arguments.name = check_name(config.run_name)
            elif arguments.name == "lightning_logs":  # Lightning's default
                arguments.name = self._run_name(config)
        if config.trainer.fast_dev_run:
            config.checkpoint.save_last = False  # Lightning would write it into the working folder
        choose_checkpoint(self.subcommand == "fit", config, named)

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **options: Any
    ) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **options)
        if subcommand == "fit":
            parser.add_argument(
                "--resume",
                action="store_true",
                help="continue the newest run of this name in its own folder, from its last.ckpt",
            )
        return parser

    def _spec(self, data: TokenDataModule) -> Spec:
        """The spec of the data, which is read with the tokens of the network that is trained further, if there is one."""
        for part in pretrained_parts(self.config[self.subcommand].model.net):
            read_with_tokens_of(data, part.checkpoint, part.trusted or ())
            break  # networks check that their tokens are those of the data
        return data.spec

    def _run_name(self, config: Any) -> str:
        """The run's name; the first configuration is parsed alone to see what other options change."""
        options, base = given_options(sys.argv[2:]), None
        first = next((value for name, value in options if name == "config"), None)
        if first is not None and may_rename(options):
            with suppress(ArgumentError, OmegaConfBaseException, OSError, ValueError):
                parser = self._subcommand_parsers[str(self.subcommand)]
                base = parser.parse_args(expand(["--config", first])).as_dict()
        return run_name(options, base, config.as_dict())

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        expand_configurations(parser.parser_mode)
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            verb = sys.argv[1]
            options = self._subcommand_parsers[verb]._option_string_actions
            line = one_line(str(error), verb, options, sys.argv[2:], known_names)
            raise UserError(line) from None
        check_values(self.config[sys.argv[1]].as_dict())

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.monitor == OBJECTIVE:
                callback.monitor = f"val/{self.model.objective.monitor}"

    def instantiate_trainer(self, **arguments: Any) -> Trainer:
        try:
            trainer = super().instantiate_trainer(**arguments)
            check_sharding(trainer, self.model.objective, self.datamodule)
            meet_interruptibly(trainer)
            if self.config_init[self.subcommand].tensorboard and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                folder = getattr(trainer.logger, "log_dir", None) or "runs"
                board = TensorBoardLogger(folder, name="", version="tensorboard")
                trainer.loggers = [*trainer.loggers, board]
            return trainer
        except UserError:
            raise
        except ModuleNotFoundError:
            raise UserError(
                "--tensorboard: it is not installed; `pip install tensorboard`"
            ) from None
        except (ValueError, MisconfigurationException) as error:
            raise UserError(f"trainer: {error}") from None

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would let the checkpoint's options override those of the command line."""


def pretrained_parts(part: Any) -> Iterator[Namespace]:
    """The arguments of each `pretrained` in a part of the configuration, the outermost first."""
    if isinstance(part, list):
        for each in part:
            yield from pretrained_parts(each)
    elif isinstance(part, Namespace):
        if part.get("class_path") in PRETRAINED:
            yield part.init_args
        for each in vars(part).values():
            yield from pretrained_parts(each)


def trust(part: Any, modules: list[str]) -> None:
    """Add modules to every argument `trusted` in a part of the configuration."""
    if isinstance(part, list):
        for each in part:
            trust(each, modules)
    elif isinstance(part, Namespace):
        if "trusted" in part and modules:
            part.trusted = list(dict.fromkeys([*(part.trusted or ()), *modules]))
        for each in vars(part).values():
            trust(each, modules)


def main() -> int:
    """Parse the command line and run the Trainer; returns the exit code."""
    with interrupts.handled():
        try:
            _run()
        except Interrupted as stopped:
            # Lightning kills the first process when it sees another one fail.
            return stopped.code if first_process() else 0
    return 0


def _run() -> None:
    _silence()
    sys.argv[1:] = expand(sys.argv[1:])
    # Importing the networks makes their class names known to the command line.
    for room in (arlm.models, arlm.adapters):
        for found in pkgutil.iter_modules(room.__path__):
            importlib.import_module(f"{room.__name__}.{found.name}")
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    defaults = dict(TRAINER_DEFAULTS)
    shows_bar = sys.stderr.isatty() and sys.stdout.isatty()
    progress = Bar() if shows_bar else LineProgress()
    defaults |= {"enable_progress_bar": shows_bar}
    defaults["callbacks"] = [progress, ValidateLastStep(), RunReport()]
    try:
        Command(
            AutoregressiveModule,
            TokenDataModule,
            subclass_mode_data=True,
            save_config_callback=SaveRun,
            trainer_defaults=defaults,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": "arlm",
                "parser_mode": "omegaconf+",
                "allow_abbrev": False,
                "exit_on_error": False,
            },
        )
    except (OmegaConfBaseException, MisconfigurationException) as error:
        raise UserError(f"configuration: {str(error).splitlines()[0]}") from None
    except ValueError as error:  # the parser wraps what constructors raise
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        if line := missing_package(str(error)):
            raise UserError(line) from None
        if not _raised_in_lightning(error):
            raise
        raise UserError(f"trainer: {error}") from None


def _raised_in_lightning(error: Exception) -> bool:
    """Whether Lightning rejected its flags (a user error); all other errors keep their traceback."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals["__name__"].startswith("pytorch_lightning.")


def _silence() -> None:
    """Drop Lightning's tips, what `RunReport` says better, and some warnings; keep every other warning."""
    noise = (
        *("\N{ELECTRIC LIGHT BULB}", "PU available", "`Trainer.fit` stopped: `max_"),
        *("Restoring states from the checkpoint", "Restored all states from the checkpoint"),
    )

    def wanted(entry: logging.LogRecord) -> bool:
        message = entry.getMessage()
        return not any(text in message for text in noise)

    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(wanted)
    logging.getLogger("lightning_fabric.utilities.seed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    # Figures are summed over the processes before they are logged.
    warnings.filterwarnings("ignore", message=r"It is recommended to use .*sync_dist=True")
    # An objective that counts has neither an optimizer nor a loss.
    warnings.filterwarnings("ignore", message=r".*this fit will run with no optimizer")
    warnings.filterwarnings("ignore", message=r"`training_step` returned `None`")
    # A run continues in its own folder, or takes its best checkpoint along.
    warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message=r"The dirpath has changed from")
    # Figures are logged by the step, across epochs.
    warnings.filterwarnings("ignore", message=r".*is smaller than the logging interval")
