"""What changes while a network is trained: one step, and all of it as a snapshot and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from converter.architectures.renorm import BatchRenorm1d, BatchRenorm2d, Schedule
from converter.errors import UserError
from converter.training.devices import pick_device
from converter.training.options import FitOptions
from converter.training.progress import History
from converter.training.schedules import OPTIMIZERS
from converter.training.snapshot import Snapshot

RENORMS = (BatchRenorm1d, BatchRenorm2d)


class State:
    """A module in training, its optimizer, and the generators of everything random.

    Attributes:
        generator: of the order and the augmentation. It is on the CPU on every device, and apart
            from torch's own, which the initial weights and dropout draw from.
        history: what was heard so far.
    """

    def __init__(self, module: nn.Module, options: FitOptions, steps: int) -> None:
        self.module = module
        self.options = options
        self.device = pick_device(options.device)
        self.generator = torch.Generator().manual_seed(options.seed)
        self.history = History([], [])
        self.best: dict[str, Tensor] = {}
        module.to(self.device).train()
        for layer in module.modules():
            if isinstance(layer, RENORMS):
                layer.schedule = Schedule.within(steps)
        self.optimizer = OPTIMIZERS[options.optimizer](module.parameters(), options.lr)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.mixed_precision)

    def step(self, x: Tensor, labels: Tensor, lr: float) -> float:
        """One step of the optimizer on x (B, C, H, W) and int64 (B,); returns the loss before."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(self.device.type, torch.float16, enabled=self.options.mixed_precision):
            loss = functional.cross_entropy(self.module(x), labels)  # logits (B, classes)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        # A step whose scaled gradients overflow is skipped, and the scale is lowered.
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item()

    def keep_best(self) -> None:
        """Remember the weights if the epoch that ended has the lowest validation loss so far."""
        if self.options.patience is not None and self._since_best() == 0:
            state = self.module.state_dict()
            self.best = {name: tensor.detach().clone() for name, tensor in state.items()}

    def is_stuck(self) -> bool:
        """Whether the validation loss has not fallen for as many epochs as the patience is."""
        patience = self.options.patience
        self.history.stopped_early = patience is not None and self._since_best() >= patience
        return self.history.stopped_early

    def return_to_best(self) -> None:
        """The weights of the best epoch, when the training may stop early."""
        if self.best:
            self.module.load_state_dict(self.best)

    def _since_best(self) -> int:
        losses = [epoch.validation_loss for epoch in self.history.epochs]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0

    def snapshot(self) -> Snapshot:
        """Copies of everything that the next epoch depends on, on the CPU once written."""
        cuda = self.device.type == "cuda"
        return Snapshot(
            module=self.module.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            order=self.generator.get_state(),
            torch_cpu=torch.get_rng_state(),
            torch_device=torch.cuda.get_rng_state(self.device) if cuda else torch.empty(0),
            history=self.history,
            best=self.best,
            options={},
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to where `snapshot` was taken. Raises UserError."""
        try:
            self.module.load_state_dict(snapshot.module)
            self.optimizer.load_state_dict(snapshot.optimizer)
            self.scaler.load_state_dict(snapshot.scaler)
            self.generator.set_state(snapshot.order)
            torch.set_rng_state(snapshot.torch_cpu)
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(snapshot.torch_device, self.device)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"the training to resume is that of another network: {error}",
                "leave out --resume to start anew",
            ) from error
        self.history, self.best = snapshot.history, snapshot.best
