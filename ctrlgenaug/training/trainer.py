"""The one training loop: accumulation, clipping, schedule, checkpoints, exact resume, records."""

from __future__ import annotations

import contextlib
import math
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from ctrlgenaug.errors import UserError
from ctrlgenaug.progress import progress
from ctrlgenaug.steps import describe
from ctrlgenaug.training import checkpoints
from ctrlgenaug.training.batch import Batch
from ctrlgenaug.training.config import TrainingConfig
from ctrlgenaug.training.loader import micro_batches
from ctrlgenaug.training.optimizer import build_optimizer
from ctrlgenaug.training.order import MicroBatches
from ctrlgenaug.training.records import Records
from ctrlgenaug.training.schedule import run_length, schedule
from ctrlgenaug.training.stage import Stage, set_modes

STOPPED = 143  # exit code after SIGTERM: 128 + 15


class Trainer:
    """Trains a `Stage` to the end of its schedule, from the newest checkpoint on if there is one.

    All that is random about a sample comes from its own generator (`ctrlgenaug.training.order`), so the state of a run
    is the weights, the optimizer, the average, the scaler and the number of samples seen.

    Args:
        config: the resolved config.
        stage: model, data, loss and validation.
        accelerator: device, processes, precision.
        records: the run folder's records.
    """

    def __init__(
        self, config: TrainingConfig, stage: Stage, accelerator: Accelerator, records: Records
    ) -> None:
        self.config, self.stage, self.accelerator, self.records = config, stage, accelerator, records
        self.run_folder = Path(config.output_dir)
        self.length = run_length(config, stage.epoch_size, accelerator.num_processes)
        self.factor = schedule(config, self.length)
        self.step = 0
        self.samples_seen = 0
        self.skipped_in_a_row = 0
        self.window: list[dict[str, float]] = []  # what the next row of stats.jsonl averages
        self.stop_asked = False  # by a signal to this process, at any moment
        self.stopping = False  # what all processes agreed on in this step

    # --- the run, as a page ----------------------------------------------------------------------------------------

    def run(self) -> Path:
        """Trains to the end; returns the last checkpoint. Leaves with exit code 143 after SIGTERM, checkpoint saved."""
        self._assemble()
        self._resume()
        self._catch_signals()
        if self.step == 0:
            self._validate(pictures=False)  # what the curves start from
        elif self._validation_due() and not self._validated_before():
            self._validate()  # the run was ended between the checkpoint and the figures of its step
        batches = self._batches()
        started, first = time.perf_counter(), self.step
        with self._progress() as bar:
            while self.step < self.length.steps:
                values = self._optimize(batches)
                bar.set_postfix(loss=f"{values['loss']:.4g}", refresh=False)
                bar.update()
                self._record(values)
                last = self.step == self.length.steps
                if last or self.stopping or self.step % self.config.checkpointing_steps == 0:
                    self.save()
                if self.stopping:
                    self._leave()
                if self._validation_due():
                    self._validate()
        seconds = time.perf_counter() - started
        if self.step > first:
            self.records.log(f"trained {self.step - first} steps in {seconds:.0f} s")
        if self.config.tracker:
            self.accelerator.end_training()
        return self.run_folder / f"checkpoint-{self.step}"

    # --- preparation -----------------------------------------------------------------------------------------------

    def _assemble(self) -> None:
        """Puts model, optimizer and average on the device; wraps them for several processes."""
        config, accelerator, stage = self.config, self.accelerator, self.stage
        stage.prepare(accelerator, self.records)
        module = stage.step_module
        self.trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if config.channels_last:
            module.to(memory_format=torch.channels_last)
        module.to(accelerator.device)
        optimizer = build_optimizer(self.trainable, config, self.length.global_batch)
        self.base_rate = optimizer.param_groups[0]["lr"]
        self.average = None
        if config.ema:
            from diffusers.training_utils import EMAModel

            self.average = EMAModel(self.trainable, decay=config.ema_decay)
        if config.torch_compile:
            stage.model.compile()
        self.module, self.optimizer = accelerator.prepare(module, optimizer)
        self._set_modes()
        if config.tracker:
            plain = {
                key: value for key, value in vars(config).items() if isinstance(value, int | float | str)
            }
            accelerator.init_trackers("tensorboard", config=plain)

    def _set_modes(self) -> None:
        set_modes(self.stage.step_module, freeze_statistics=getattr(self.config, "freeze_batch_norm", True))

    def _batches(self) -> Iterator[Batch]:
        """This process's micro-batches from the samples seen on, to the end of the run."""
        config, accelerator = self.config, self.accelerator
        order = MicroBatches(
            config.seed,
            len(self.stage.data),
            config.train_batch_size,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            start=self.samples_seen,
            micro_batches=(self.length.steps - self.step) * config.gradient_accumulation_steps,
            groups=self.stage.data.groups,
        )
        return micro_batches(
            self.stage.data,
            order,
            workers=config.dataloader_num_workers,
            device=accelerator.device,
            records=self.records,
        )

    def _catch_signals(self) -> None:
        def request(number: int, frame: Any) -> None:
            self.stop_asked = True

        signal.signal(signal.SIGTERM, request)
        signal.signal(signal.SIGUSR1, request)

    def _progress(self) -> tqdm:
        return progress(
            total=self.length.steps,
            description=self.stage.folder,
            unit="step",
            initial=self.step,
            disable=not self.accelerator.is_main_process,
        )

    # --- one optimizer step ------------------------------------------------------------------------------------------

    def _optimize(self, batches: Iterator[Batch]) -> dict[str, float]:
        """One optimizer step over ``gradient_accumulation_steps`` micro-batches; returns what is logged of it."""
        started = time.perf_counter()
        rate = self.base_rate * self.factor(self.samples_seen)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        micro_batches = self.config.gradient_accumulation_steps
        totals: dict[str, float] = {}
        names: list[str] = []
        for number in range(micro_batches):
            batch = next(batches)
            names += batch.names
            last = number == micro_batches - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.module):
                loss, scalars = self.module(batch)
                self.accelerator.backward(loss / micro_batches)
            for key, value in {"loss": loss, **scalars}.items():
                totals[key] = totals.get(key, 0.0) + float(value.detach()) / micro_batches
        totals = self._across_processes(totals)
        norm = self._apply(totals["loss"], names)
        self.step += 1
        self.samples_seen += self.length.global_batch
        seconds = time.perf_counter() - started
        return {**totals, "lr": rate, "grad_norm": norm, "samples_per_s": self.length.global_batch / seconds}

    def _across_processes(self, totals: dict[str, float]) -> dict[str, float]:
        """Averages the scalars over the processes, and lets one process's stop request stop all.

        A request that comes while the processes agree is heard at the next step: it must not be overwritten.
        """
        if self.accelerator.num_processes == 1:
            self.stopping = self.stop_asked
            return totals
        row = torch.tensor([*totals.values(), float(self.stop_asked)], dtype=torch.float64)
        dtype = torch.float32 if self.accelerator.device.type == "mps" else torch.float64
        mean = self.accelerator.reduce(row.to(self.accelerator.device, dtype), reduction="mean").tolist()
        self.stopping = mean[-1] > 0
        return dict(zip(totals, mean, strict=False))

    def _apply(self, loss: float, names: list[str]) -> float:
        """Clips and steps; skips the step if the loss is not finite, and stops at the second in a row."""
        if not math.isfinite(loss):
            self.optimizer.zero_grad(set_to_none=True)
            self.skipped_in_a_row += 1
            files = ", ".join(sorted(set(gather_object(names))))
            if self.skipped_in_a_row > 1:
                raise UserError(
                    f"the loss is {loss} at step {self.step + 1}, as at the step before; batch: {files}",
                    "Look at these files; if they are sound, lower learning_rate or use mixed_precision=no",
                    self.run_folder,
                )
            self.records.log(f"step {self.step + 1} skipped: the loss is {loss}; batch: {files}")
            return math.nan
        self.skipped_in_a_row = 0
        norm = self.accelerator.clip_grad_norm_(self.trainable, self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.step(self.trainable)
        return float(norm)

    # --- records -----------------------------------------------------------------------------------------------------

    @property
    def _epoch(self) -> int:
        return self.samples_seen // self.stage.epoch_size

    def _record(self, values: dict[str, float]) -> None:
        if math.isfinite(values["loss"]):
            self.records.published("train_loss.txt", self.step, self._epoch, values["loss"])
        self.window.append(values)
        if self.step % self.config.log_steps and self.step != self.length.steps:
            return
        finite = [row for row in self.window if math.isfinite(row["loss"])]
        self.window = []
        if not finite:
            return
        mean = {key: sum(row[key] for row in finite) / len(finite) for key in finite[-1]}
        mean |= {"lr": values["lr"], "samples": self.samples_seen, "peak_memory_gb": peak_memory_gb()}
        self.records.stats(self.step, mean)
        if self.config.tracker:
            self.accelerator.log(mean, step=self.step)

    def _validation_due(self) -> bool:
        return self.step == self.length.steps or self.step % self.config.validation_steps == 0

    def _validated_before(self) -> bool:
        """Whether this step's validation was finished by an earlier start; the main process's word counts."""
        return gather_object([self.records.validated_step() == self.step])[0]

    def _validate(self, pictures: bool = True) -> None:
        """Figures and pictures by the main process, with the averaged weights if there are any; the others wait."""
        if self.accelerator.is_main_process:
            state = checkpoints.random_states()
            self.stage.step_module.eval()
            try:
                with torch.no_grad(), self._averaged():
                    figures = self.stage.measure()
                    for name, value in figures.items():
                        if not math.isfinite(value):
                            self.records.log(f"WARNING: {name} is {value} at step {self.step}")
                            continue
                        self.records.published(f"{name}.txt", self.step, self._epoch, value)
                        self.records.log(f"step {self.step}: {name} {value:.4f}")
                    if pictures:
                        self.stage.measure_steering(self.step, self.samples_seen, self.records)
                        self.stage.validate(self.step, self.records)
                if figures and self.config.tracker:
                    self.accelerator.log(figures, step=self.step)
                self.records.curves()
                self.records.note_validated(self.step)
            except UserError as error:  # hours of training are worth more than one picture
                self.records.log(f"validation at step {self.step} failed: {describe(error)}")
            checkpoints.restore_random_states(state)
        self._set_modes()
        self.accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in place of the trained ones, for the length of the block."""
        if self.average is None:
            yield
            return
        self.average.store(self.trainable)
        self.average.copy_to(self.trainable)
        try:
            yield
        finally:
            self.average.restore(self.trainable)

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def _extra_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Trained parameters outside the model's folder, e.g. the VAE loss's logvar."""
        named = self.stage.step_module.named_parameters()
        return {name: value for name, value in named if value.requires_grad and not name.startswith("model.")}

    def save(self) -> None:
        """Writes ``checkpoint-N``; called by every process, written by the main one."""
        random_states = gather_object([checkpoints.random_states()])
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = {
                "step": self.step,
                "samples_seen": self.samples_seen,
                "skipped_in_a_row": self.skipped_in_a_row,
                "window": self.window,
                "data": self.stage.data.fingerprint(),
                "seed": self.config.seed,
                "optimizer": self.optimizer.state_dict(),
                "extra": {name: value.detach().cpu() for name, value in self._extra_parameters().items()},
                "scaler": scaler.state_dict() if scaler is not None else None,
                "average": self.average.state_dict() if self.average is not None else None,
                "random": random_states,
            }
            folder = self.run_folder / f"checkpoint-{self.step}"
            checkpoints.write(folder, self._save_models, state)
            checkpoints.prune(self.run_folder, self.config.checkpoints_to_keep)
            self.records.log(f"saved {folder}")
        self.accelerator.wait_for_everyone()

    def _save_models(self, folder: Path) -> None:
        self.stage.before_save()
        self.stage.model.save_pretrained(folder / self.stage.folder)
        if self.average is not None:
            with self._averaged():
                self.stage.before_save()
                self.stage.model.save_pretrained(folder / f"{self.stage.folder}_ema")

    def _resume(self) -> None:
        """Continues from the checkpoint that the config asks for, if there is one."""
        wanted = self.config.resume_from_checkpoint
        if wanted is None:
            if checkpoints.find(self.run_folder):
                raise UserError(
                    "holds the checkpoints of another run",
                    "Choose another output_dir, or resume_from_checkpoint=latest",
                    self.run_folder,
                )
            return
        if wanted == "latest":
            folder = checkpoints.newest_whole(self.run_folder, self.records.log)
        else:
            folder = Path(wanted) if Path(wanted).is_dir() else self.run_folder / wanted
            checkpoints.check(folder)
        if folder is None:
            self.records.rewind(-1)  # a run killed before its first checkpoint starts its records over
            return
        state = checkpoints.load_state(folder)
        self._load(folder, state)
        self.records.rewind(self.step)
        self.records.log(f"continuing from {folder}: step {self.step} of {self.length.steps}")

    def _load(self, folder: Path, state: dict[str, Any]) -> None:
        config = self.config
        if (state["seed"], state["data"]) != (config.seed, self.stage.data.fingerprint()):
            if folder.parent.resolve() == self.run_folder.resolve():
                raise UserError(
                    "was trained on other samples (their names, classes or order differ)",
                    "Restore the data set, choose another output_dir, or delete this one",
                    self.run_folder,
                )
            self.records.log("note: seed or data set differ from those of the checkpoint")
        self.stage.model.load_state_dict(self.stage.read_weights(folder / self.stage.folder))
        for name, parameter in self._extra_parameters().items():
            parameter.data.copy_(state["extra"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None and state["average"] is not None:
            self.average.load_state_dict(state["average"])
            self.average.to(self.accelerator.device)
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.samples_seen = state["step"], state["samples_seen"]
        self.skipped_in_a_row, self.window = state["skipped_in_a_row"], state["window"]
        if self.samples_seen != self.step * self.length.global_batch:  # another batch size or process count
            left = max(0, self.length.samples - self.samples_seen)
            steps = self.step + math.ceil(left / self.length.global_batch)
            self.length = type(self.length)(
                self.length.global_batch, steps, self.length.samples, self.length.warmup_samples
            )
        if len(state["random"]) == self.accelerator.num_processes:
            checkpoints.restore_random_states(state["random"][self.accelerator.process_index])

    def _leave(self) -> None:
        self.records.log(f"stopped on request at step {self.step}; the same command continues from there")
        raise SystemExit(STOPPED)


def peak_memory_gb() -> float:
    """The most memory this process has held: on the GPU where it uses one, else in RAM; 10^9 bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
