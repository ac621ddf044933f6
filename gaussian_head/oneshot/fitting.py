"""The one training loop of all one-shot networks: in one process, or in the processes that `torchrun` starts.

Several processes share nothing but gradients: each makes its own batches, `update` averages their gradients (so that
losses that are means over a batch train as on the joined batch), and everything else happens alike everywhere. Running
statistics of batch norm are each process's own; rank 0's are saved, as DistributedDataParallel does.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.checkpoints import Checkpoint, optimizer_tensors, restore_optimizer
from gaussian_head.device import choose_device
from gaussian_head.errors import UserError

logger = logging.getLogger(__name__)
FORMAT = 1
"""Of the checkpoints; raised when their meaning changes."""
NAN_LIMIT = 20
"""Steps in a row with a loss or gradient that is not finite before training gives up."""

Update = Callable[[Tensor, Optimizer], None]
Progress = Callable[[Iterable[int], int, str, int], Iterator[int]]
"""Passes steps on and shows how far they are: (steps, total, label, first); `gaussian_head.progress.track` is one."""


class Task(ABC):
    """One training: what is learned, from what, and how one step goes.

    Learning rates that change are set in `step`, from the number of the step alone; whatever else must outlast a stop
    is a parameter or a buffer of `networks`.
    """

    name: str
    networks: dict[str, nn.Module]
    """What is trained and saved, by the name of its file; averages too."""
    optimizers: dict[str, Optimizer]

    @abstractmethod
    def batch(self, step: int, rank: int) -> Any:  # noqa: ANN401 -- the task's own
        """Make what `step` learns from, by `numpy.random.default_rng((seed, rank, step))` alone.

        Args:
            step: Steps finished.
            rank: Of this process among those of torchrun; 0 where there is one.
        """

    @abstractmethod
    def step(self, batch: Any, step: int, update: Update) -> dict[str, Tensor]:  # noqa: ANN401
        """Take one step: compute losses and hand each with its optimizer to `update`, in an order that never varies.

        `update(loss, optimizer)` clears the optimizer's gradients, goes backward, averages the gradients over the
        processes and takes the optimizer's step (none where loss or gradient is not finite). torch's own random
        numbers are seeded before by rank and step.

        Returns:
            Losses to log, by name.
        """

    @abstractmethod
    def show(self, step: int, writer: SummaryWriter) -> None:
        """Write figures and pictures for TensorBoard; leaves the networks as it found them. Rank 0 alone is asked."""


@dataclass(frozen=True)
class FitConfig:
    """How long, and how often things happen besides steps."""

    steps: int = 100_000
    """Optimizer steps in all, an earlier run's included."""
    log_every: int = 50
    """Steps between logged losses."""
    show_every: int = 1_000
    """Steps between figures and pictures."""
    save_every: int = 1_000
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            UserError: A number is below 1.
        """
        for name in ("steps", "log_every", "show_every", "save_every"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be 1 or more, got {getattr(self, name)}.")


def task_device(name: str) -> torch.device:
    """Choose a device as every command does; of several GPUs, a process of torchrun takes its own.

    Raises:
        UserError: No such device here.
    """
    device = choose_device(name)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def fit(
    task: Task, folder: Path, config: FitConfig, progress: Progress, document: dict[str, Any] | None = None
) -> None:  # fmt: skip
    """Train a task from its beginning, or from its latest checkpoint in the folder, as if it had never been stopped.

    Leaves `folder/step_<n>/` with a `<network>.safetensors` each, and TensorBoard's events. Under torchrun (RANK,
    WORLD_SIZE and LOCAL_RANK in the environment) rank 0 alone writes.

    Args:
        task: What to train.
        folder: Of this training alone.
        config: See `FitConfig`.
        progress: Shows how far it is.
        document: JSON values stored with the checkpoints: the task's options. A run of other options is not continued.

    Raises:
        UserError: The folder holds another training, or a damaged one; or losses were not finite many times in a row.
    """
    with _processes(task):
        rank, world = _rank_and_world()
        document = {"format": FORMAT, "task": task.name, "processes": world, "options": document or {}}
        first = _resume(task, folder, document)
        _share(task)
        with SummaryWriter(str(folder), purge_step=first) if rank == 0 else nullcontext() as writer:
            _steps(task, folder, config, progress, document, first, writer)
        if world > 1:
            distributed.barrier()


def _steps(
    task: Task, folder: Path, config: FitConfig, progress: Progress, document: dict[str, Any], first: int,
    writer: SummaryWriter | None,
) -> None:  # fmt: skip
    rank, _ = _rank_and_world()
    steps = range(first, config.steps)
    update = _Update(task.name)
    clock = time.perf_counter()
    for step in progress(steps, config.steps, task.name, first) if writer else steps:
        torch.manual_seed(int(np.random.SeedSequence((rank, step)).generate_state(1)[0]))
        losses, done = task.step(task.batch(step, rank), step, update), step + 1
        update.judge(done)
        if writer is None:
            continue
        last = done == config.steps
        if done % config.log_every == 0:
            writer.add_scalar("time/step_ms", (time.perf_counter() - clock) * 1e3 / config.log_every, done)
            for name, value in losses.items():
                writer.add_scalar(f"loss/{name}", value.item(), done)
            clock = time.perf_counter()
        if done % config.save_every == 0 or last:
            _save(task, folder, done, document)
        if done % config.show_every == 0 or last:
            task.show(done, writer)
            clock = time.perf_counter()


def _save(task: Task, folder: Path, step: int, document: dict[str, Any]) -> None:
    training = {}
    for name, optimizer in task.optimizers.items():
        training |= optimizer_tensors(optimizer, name)
    networks = {name: network.state_dict() for name, network in task.networks.items()}
    Checkpoint.save(folder, step, document, networks | {"training": training})


def load_trained(folder: Path, name: str) -> dict[str, Tensor]:
    """Return the tensors of one network as the latest checkpoint of a training has them.

    Args:
        folder: As given to `fit`.
        name: Of the network, in `Task.networks`.

    Raises:
        UserError: There is no checkpoint, or it is damaged.
    """
    checkpoint = Checkpoint.find(folder, FORMAT)
    if checkpoint is None:
        raise UserError(f"{folder} holds no checkpoint; make one with: python -m gaussian_head.oneshot.train")
    return checkpoint.load(name)


def _resume(task: Task, folder: Path, document: dict[str, Any]) -> int:
    checkpoint = Checkpoint.find(folder, FORMAT)
    if checkpoint is None:
        return 0
    found = checkpoint.document
    for key in ("task", "options"):
        if found.get(key) != document[key]:
            raise UserError(
                f"{folder} holds a training of {found.get('task')} with other options; give the same, or another --out."
                if key == "options"
                else f"{folder} holds a training of {found.get('task')}, not of {task.name}; give another --out."
            )
    if found.get("processes") != document["processes"]:
        logger.warning(
            "%s was trained by %s processes and goes on with %d: its batches are others than they would have been.",
            folder, found.get("processes"), document["processes"],
        )  # fmt: skip
    for name, network in task.networks.items():
        try:
            network.load_state_dict(checkpoint.load(name))
        except RuntimeError as error:
            why = str(error).splitlines()[-1].strip()
            raise UserError(
                f"{checkpoint.folder / name}.safetensors does not fit this {name} ({why});"
                " give the options it was trained with, or another --out."
            ) from error
    training = checkpoint.load("training")
    for name, optimizer in task.optimizers.items():
        restore_optimizer(optimizer, training, name)
    logger.info("%s: goes on from step %d", task.name, checkpoint.step)
    return checkpoint.step


def _rank_and_world() -> tuple[int, int]:
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


@contextmanager
def _processes(task: Task) -> Iterator[None]:
    """Join the other processes where torchrun started several; torch's random state is as before, afterwards."""
    device = next((p.device for network in task.networks.values() for p in network.parameters()), torch.device("cpu"))
    cuda = device.type == "cuda"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
        atexit.register(distributed.destroy_process_group)  # not before: a process can join only once
    with torch.random.fork_rng([device] if cuda else []), torch.cuda.device(device) if cuda else nullcontext():
        yield


def _share(task: Task) -> None:
    """Give all processes rank 0's parameters and buffers."""
    if _rank_and_world()[1] == 1:
        return
    for name in sorted(task.networks):
        for tensor in task.networks[name].state_dict().values():
            distributed.broadcast(tensor, src=0)


class _Update:
    """The `update` that tasks call, and what it saw."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bad_now, self._bad_steps = False, 0

    def __call__(self, loss: Tensor, optimizer: Optimizer) -> None:
        """Take an optimizer's step along the averaged gradient of a loss."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        if _averaged(loss.detach(), parameters):
            optimizer.step()
        else:
            self._bad_now = True

    def judge(self, done: int) -> None:
        """Look back on a whole step.

        Raises:
            UserError: Too many steps in a row were not finite.
        """
        if self._bad_now:
            logger.warning("%s step %d: loss or gradient is not finite; the step is skipped.", self._name, done)
        self._bad_steps = self._bad_steps + 1 if self._bad_now else 0
        self._bad_now = False
        if self._bad_steps == NAN_LIMIT:
            raise UserError(
                f"{self._name}: loss or gradient was not finite in {NAN_LIMIT} steps in a row, up to step {done}; "
                "lower the learning rate, or look for broken training data, then run again (the checkpoint is sound)."
            )


def _averaged(loss: Tensor, parameters: list[nn.Parameter]) -> bool:
    """Average gradients over the processes, in place; one that no process has stays absent.

    Returns:
        Whether loss and gradients are finite: the same in all processes.
    """
    _, world = _rank_and_world()
    if world == 1:
        held = [p.grad for p in parameters if p.grad is not None]
        return bool(torch.isfinite(loss) & torch.isfinite(torch.nn.utils.get_total_norm(held)))
    present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=loss.device)
    flat = torch.cat([
        loss.reshape(1).float(), present,
        *(torch.zeros_like(p).flatten().float() if p.grad is None else p.grad.flatten().float() for p in parameters),
    ])  # fmt: skip
    distributed.all_reduce(flat)
    if not bool(torch.isfinite(flat).all()):
        return False
    _, anywhere, gradients = flat.split([1, len(parameters), len(flat) - 1 - len(parameters)])
    parts = (gradients / world).split([p.numel() for p in parameters])
    for parameter, part, count in zip(parameters, parts, anywhere.tolist(), strict=True):
        if count:
            parameter.grad = part.view_as(parameter).to(parameter.dtype)
    return True
