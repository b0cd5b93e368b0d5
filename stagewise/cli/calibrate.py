"""``stagewise calibrate``: trains the run of a configuration without probes and finds sampler settings for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import TensorBoardLogger

from stagewise.calibration.report import Calibration, calibration_figure
from stagewise.callbacks.calibration import CalibrationRun, CalibrationSettings
from stagewise.callbacks.influence import InfluenceCallback
from stagewise.cli.settings_command import prepare
from stagewise.cli.training import StagewiseCLI, cli_settings
from stagewise.errors import InputError
from stagewise.files.writing import write_json

JSON_NAME, FIGURE_NAME = "calibration.json", "calibration.png"


class CalibrationTrainer(Trainer):
    """Trainer with the method that gives the command its name."""

    def calibrate(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Trains the run of a configuration without probes and finds sampler settings for it.

        Args:
            model: module to train.
            datamodule: its data.
            ckpt_path: checkpoint to resume from.
            weights_only: way to read the checkpoint, see ``Trainer.fit``.
        """
        self.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=weights_only)


class CalibrationCLI(StagewiseCLI):
    """Command line of ``fit`` with a section ``calibration``."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the arguments of ``fit`` and the settings of the calibration."""
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(CalibrationSettings, "calibration")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Returns the only command."""
        return {"calibrate": {"model", "datamodule"}}

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Creates the configured Trainer without probes and checkpoints; it logs next to the versions of the run."""
        settings = CalibrationSettings(**vars(self._get(self.config_init, "calibration")))
        self.calibration_run = CalibrationRun(self._get(self.config_init, "influence"), settings)
        configured = self._get(self.config_init, "trainer", default={})
        if settings.output_dir is not None:
            logger = TensorBoardLogger(settings.output_dir, name="", version="")
        else:
            logger = TensorBoardLogger(_root(configured), name="calibration")
        given = configured.get("callbacks") or []
        kept = [item for item in (given if isinstance(given, list) else [given]) if not isinstance(item, Checkpoint)]
        trainer = super().instantiate_trainer(
            callbacks=[*kept, self.calibration_run], logger=logger, enable_checkpointing=False
        )
        trainer.callbacks = [  # type: ignore[attr-defined]
            callback
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if not isinstance(callback, InfluenceCallback)
        ]
        return trainer


def _root(configured: Mapping[str, Any]) -> str:
    """Returns the folder that holds the versions of the run."""
    loggers = configured.get("logger")
    first = loggers[0] if isinstance(loggers, list) and loggers else loggers
    own = getattr(first, "root_dir", None) or getattr(first, "save_dir", None)
    return str(own or Path(configured.get("default_root_dir") or ".") / "lightning_logs")


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Writes ``calibration.json`` and ``calibration.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JSON_NAME, calibration.as_dict())
    calibration_figure(calibration).savefig(folder / FIGURE_NAME)


def run_calibration(arguments: Sequence[str]) -> Calibration:
    """Parses arguments, trains, measures, tests the proposed settings, writes and prints the result.

    Args:
        arguments: ``calibrate`` and its options, including those of ``fit``.

    Returns:
        The calibration.

    Raises:
        InputError: a setting is unusable, or training ended before curvature was measured.
        jsonargparse.ArgumentError: the configuration could not be parsed.
    """
    prepare(arguments)
    cli = CalibrationCLI(
        LightningModule,
        LightningDataModule,
        trainer_class=CalibrationTrainer,
        save_config_callback=None,
        args=list(arguments),
        **cli_settings(),
    )
    calibration = cli.calibration_run.result
    if calibration is None:
        raise InputError(
            f"got a run that ended at step {cli.trainer.global_step}, before any curvature was measured; expected one "
            "that reaches its first probe; see the output of training"
        )
    if cli.trainer.is_global_zero:
        folder = Path(cli.trainer.log_dir or cli.trainer.default_root_dir)
        write_calibration(folder, calibration)
        print(calibration.explain())
        print(f"\nSettings to paste:\n{calibration.yaml_fragment()}")
        print(f"Written: {folder / JSON_NAME}, {folder / FIGURE_NAME}")
    return calibration
