"""The command line that the three training scripts and the export share."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ctrlgenaug import steps
from ctrlgenaug.config import load_config, save_config, to_yaml
from ctrlgenaug.errors import UserError, in_one_line
from ctrlgenaug.training.config import TrainingConfig
from ctrlgenaug.training.export import CONFIG_FILE, export_model, model_in
from ctrlgenaug.training.processes import (
    connect,
    forget_accelerate_settings,
    leave_with_launcher,
    lost_connection,
    rank,
)
from ctrlgenaug.training.published import PublishedFields
from ctrlgenaug.training.settings import refuse_other_inputs, refuse_other_settings

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ctrlgenaug.training.stage import Stage

ROOT = Path(__file__).resolve().parent.parent.parent
# What is looked for in the project's folder too, so that a training may be started in another one.
INPUTS = ("pretrained_model_path", "vae_path", "lpips_weights", "train_data_dir", "test_data_dir")
SECONDS_FOR_THE_MAIN_PROCESS = 20  # to fail as this process did, before this one speaks up


def find_input(path: str) -> str:
    """``path`` as given or, where that does not exist, below the project's own folder."""
    return path if Path(path).exists() or not (ROOT / path).exists() else str(ROOT / path)


def read_config(schema: type[TrainingConfig], path: str, overrides: Sequence[str]) -> TrainingConfig:
    """The resolved config of a YAML file, in the published words or ours, with ``overrides`` that win over it."""
    translate = PublishedFields(schema)
    config = load_config(schema, find_input(path), overrides, translate=translate)
    for name in INPUTS:
        if getattr(config, name, None):
            setattr(config, name, find_input(getattr(config, name)))
    if rank() == 0:
        print("".join(f"{note}\n" for note in translate.notes), end="", flush=True)
    return config


def main(
    schema: type[TrainingConfig],
    build_stage: Callable[[TrainingConfig], Stage],
    *,
    description: str,
    script: str,
    default_config: str,
) -> int:
    """Parses the command line of a training script and runs it.

    Args:
        schema: the stage's config.
        build_stage: makes the stage; called once the config is known to be sound, so that it may import models.
        description: for ``--help``.
        script: the script's name, for the example.
        default_config: relative to the project.
    """
    parser = steps.parser(
        description
        + f"\n\nEvery field of the config can be given as key=value (docs/configuration.md). Default: {default_config}."
        + "\nThe same command again continues from the newest checkpoint.",
        f"accelerate launch {script} --config {default_config} train_batch_size=8 output_dir=runs/try",
    )
    parser.add_argument("--config", default=default_config, help="YAML file (default: %(default)s)")
    parser.add_argument(
        "--dry_run", action="store_true", help="print config, sizes and steps, check all files, stop"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="config fields that win over the file"
    )
    arguments, flags = parser.parse_known_intermixed_args()
    # --learning_rate=1e-4 is as good as learning_rate=1e-4
    if wrong := [flag for flag in flags if "=" not in flag]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)} (fields are given as key=value)")
    leave_with_launcher()
    rank()  # an environment that makes no sense is told before anything else
    with told_once():
        config = read_config(schema, arguments.config, [*arguments.overrides, *flags])
        return train(config, build_stage, dry_run=arguments.dry_run)


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """A `UserError` that all processes meet is told by the main one, whose end makes the launcher end the others.

    Another process waits for that, and tells its error only if the main process goes on without it.
    """
    try:
        yield
    except UserError:
        if rank() > 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(SECONDS_FOR_THE_MAIN_PROCESS)
        raise
    except RuntimeError as error:
        from ctrlgenaug.training.loader import killed_worker

        if told := killed_worker(error):
            raise told from None
        if not lost_connection(error):
            raise
        raise UserError(
            f"another process of this training is gone ({in_one_line(error)})",
            "The same command on all machines continues from the newest checkpoint",
        ) from None


def train(
    config: TrainingConfig, build_stage: Callable[[TrainingConfig], Stage], *, dry_run: bool = False
) -> int:
    """One training run from a resolved config to the exported folder."""
    if rank() == 0:
        print(to_yaml(config), end="", flush=True)
    # imported here, so that a mistake in the command line or config costs no time
    from ctrlgenaug.folders import exclusive
    from ctrlgenaug.training import inputs
    from ctrlgenaug.training.records import Records
    from ctrlgenaug.training.trainer import Trainer

    accelerator = make_accelerator(config)
    stage = build_stage(config)
    told: list[str] = []
    starts_from: dict[str, str] = {}

    def check_settings() -> None:
        told.append(refuse_other_settings(config))
        starts_from.update(stage.inputs())
        refuse_other_inputs(config, starts_from)

    checks = [stage.data.check] if dry_run else [check_settings, stage.data.check]
    if not passes(checks, accelerator):
        return steps.EXIT_ERROR
    if dry_run:
        if accelerator.is_main_process:
            print(summary(config, stage, accelerator.num_processes))
            print(memory_line(config, stage, accelerator.num_processes))
            print(
                f"dry run: all files of {len(stage.data)} samples are there and readable; nothing was trained"
            )
        return 0
    if not accelerator.is_main_process:
        Trainer(config, stage, accelerator, Records(config.output_dir, active=False)).run()
        return 0
    with exclusive(config.output_dir):
        records = Records(config.output_dir)
        save_config(config, records.folder / CONFIG_FILE)
        inputs.note(records.folder, starts_from)
        records.log("\n".join(filter(None, [summary(config, stage, accelerator.num_processes), *told])))
        checkpoint = Trainer(config, stage, accelerator, records).run()
        if config.export_dir:
            model_folder = model_in(checkpoint, stage.folder)
            made = export_model(vars(config), stage.folder, model_folder, config.export_dir)
            records.log(f"{stage.folder} trained and exported to {made}. {stage.next_step}")
        else:
            records.log(
                f"{stage.folder} trained: {checkpoint}. Next: python export_model.py --run {config.output_dir}"
            )
    return 0


def passes(checks: Sequence[Callable[[], object]], accelerator: Accelerator) -> bool:
    """Checks by the main process, which raises the `UserError`; False on the others if it does."""
    from accelerate.utils import broadcast_object_list

    failure = None
    if accelerator.is_main_process:
        try:
            for check in checks:
                check()
        except UserError as error:
            failure = error
    sound = broadcast_object_list([failure is None])[0]
    if failure is not None:
        raise failure
    return sound


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """Devices, processes and precision, as launched and configured."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    on_gpu = torch.cuda.is_available()
    if config.mixed_precision == "fp16" and not on_gpu:
        raise UserError("mixed_precision=fp16 needs a GPU", "Use bf16 or no")
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.allow_tf32
    if (engines := forget_accelerate_settings()) and rank() == 0:
        print(f"note: {', '.join(engines)} is not used; training here is plain data parallelism", flush=True)
    connect(on_gpu)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        cpu=not on_gpu,
        log_with=config.tracker,
        project_dir=config.output_dir,
    )
    set_seed(config.seed)
    return accelerator


def summary(config: TrainingConfig, stage: Stage, num_processes: int) -> str:
    """Sizes and steps."""
    from ctrlgenaug.training.schedule import run_length
    from ctrlgenaug.training.stage import count_parameters

    total, trained = count_parameters(stage.step_module)
    length = run_length(config, stage.epoch_size, num_processes)
    classes = f", every class equally often: {stage.epoch_size} an epoch" if stage.data.groups else ""
    return (
        f"{config.data_name} {config.train_split}: {len(stage.data)} samples{classes}\n"
        f"parameters: {total:,}, trainable: {trained:,}\n"
        f"steps: {length.steps:,} of {length.global_batch} samples ({config.train_batch_size} a micro-batch x "
        f"{config.gradient_accumulation_steps} x {num_processes} processes), "
        f"{length.samples / stage.epoch_size:.1f} epochs, warm-up {length.warmup_samples:,} samples"
    )


def memory_line(config: TrainingConfig, stage: Stage, num_processes: int) -> str:
    """What the run will take in memory, estimated; loads the stage's companions."""
    from ctrlgenaug.training import memory

    stage.load_companions(stage.device)
    return memory.describe(config, memory.run_memory(config, stage, num_processes))
