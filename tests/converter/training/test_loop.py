"""The loop: the schedule, the augmentation, and that it learns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from converter.architectures import build
from converter.errors import UserError
from converter.training import Diverged, Epoch, FitOptions, Observer, Run, Step, fit
from converter.training.augment import augment, can_move
from converter.training.data import Dataset, Split, pixels
from converter.training.evaluate import accuracy, logits, loss_and_accuracy, predictions
from converter.training.schedules import warm_up_cosine

pytestmark = pytest.mark.slow


def small() -> nn.Module:
    torch.manual_seed(0)
    return build("mnist_cnn", width=4, hidden=32)


def run(
    module: nn.Module,
    data: Dataset,
    *,
    epochs: int = 1,
    batch_size: int = 50,
    lr: float = 0.01,
    observers: Sequence[Observer] = (),
) -> list[Epoch]:
    options = FitOptions(epochs=epochs, batch_size=batch_size, lr=lr)
    return fit(module, data, options, observers).epochs


def test_the_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    rates = [warm_up_cosine(step, 100, 0.5) for step in range(100)]
    assert 0 < rates[0] < 0.02
    assert max(rates) == pytest.approx(0.5, rel=1e-3)
    assert rates.index(max(rates)) in {19, 20}
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 < rates[-1] < 1e-3


def test_a_single_step_has_a_rate() -> None:
    assert 0 < warm_up_cosine(0, 1, 1.0) < 1


def test_augmented_images_stay_in_range_and_near_the_original(data: Dataset) -> None:
    x = pixels(data.train.images[:100])
    y = augment(x, torch.Generator().manual_seed(1))
    assert y.shape == x.shape
    assert y.dtype == torch.float32
    assert float(y.min()) >= 0
    assert float(y.max()) <= 1 + 1e-6
    mass = y.sum((1, 2, 3)) / x.sum((1, 2, 3))  # zoom by up to 1.1 either way: 0.83 to 1.23
    assert float(mass.min()) > 0.75
    assert float(mass.max()) < 1.3
    assert not torch.equal(x, y)


def test_each_image_is_moved_by_its_own_amounts(data: Dataset) -> None:
    x = pixels(data.train.images[:1]).expand(2, 1, 28, 28)
    first, second = augment(x, torch.Generator().manual_seed(1))
    assert not torch.equal(first, second)


def test_the_generator_decides_the_augmentation(data: Dataset) -> None:
    x = pixels(data.train.images[:5])
    once = augment(x, torch.Generator().manual_seed(1))
    assert torch.equal(once, augment(x, torch.Generator().manual_seed(1)))
    assert not torch.equal(once, augment(x, torch.Generator().manual_seed(2)))


def test_features_stay_where_they_are() -> None:
    """In an image of one row a shift would take them out of it."""
    x = torch.arange(1.0, 25.0).reshape(4, 1, 1, 6)
    split = Split(x, torch.tensor([0, 1, 0, 1]))
    seen = []

    class Remember(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.detach().clone())
            return super().forward(x.flatten(1))

    fit(Remember(6, 2), Dataset(split, split, ["a", "b"], ""), FitOptions(epochs=1, batch_size=4))
    assert sorted(seen[0].flatten().tolist()) == x.flatten().tolist()
    assert not can_move(x)
    assert can_move(x.reshape(4, 1, 2, 3))


@pytest.mark.parametrize("name", ["mnist_cnn", "mlp"])
def test_three_epochs_on_the_subset_learn(name: str, data: Dataset) -> None:
    torch.manual_seed(0)
    module = build(name)
    untrained, _ = loss_and_accuracy(module, data.test.images, data.test.labels)
    history = run(module, data, epochs=3)
    losses = [epoch.train_loss for epoch in history]
    assert losses == sorted(losses, reverse=True)
    assert history[-1].validation_loss < untrained / 2
    assert history[-1].validation_accuracy > 0.7
    assert [epoch.number for epoch in history] == [1, 2, 3]
    assert all(epoch.seconds > 0 for epoch in history)


def test_the_listener_hears_every_batch_and_epoch(data: Dataset) -> None:
    heard: list[object] = []

    class Listener(Observer):
        def start(self, run: Run) -> None:
            heard.append((run.epochs, run.batches))

        def step(self, step: Step, module: nn.Module) -> None:
            assert math.isfinite(step.loss)
            assert 0 < step.lr <= 0.01
            assert all(p.grad is not None for p in module.parameters())
            heard.append((step.epoch, step.step))

        def epoch(self, epoch: Epoch, module: nn.Module) -> None:
            assert module.training
            heard.append(epoch.number)

    run(small(), data, epochs=2, batch_size=400, observers=[Listener(), Listener()])
    assert heard[::2] == heard[1::2] == [(2, 2), (1, 1), (1, 2), 1, (2, 3), (2, 4), 2]


def test_incomplete_batches_leave_no_trace_in_the_statistics(data: Dataset) -> None:
    module = small()
    run(module, data, batch_size=300)
    assert module.state_dict()["bn1.num_batches_tracked"] == 3


def test_a_training_set_smaller_than_a_batch_is_refused(data: Dataset) -> None:
    with pytest.raises(UserError, match="1000 training images do not fill a batch of 1001"):
        run(small(), data, batch_size=1001)


def test_a_loss_that_is_not_finite_ends_the_training(data: Dataset) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((784, 10), 1e38))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ self.weight * 1e38

    with pytest.raises(Diverged, match="training loss became nan in epoch 1, step 1") as raised:
        run(Broken(), data)
    assert "smaller --lr" in raised.value.hint
    assert len(raised.value.history.steps) == 1


def test_evaluation_does_not_depend_on_the_batch_and_leaves_the_mode_alone(
    data: Dataset,
) -> None:
    module = small()
    run(module, data, batch_size=200)
    module.train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    whole = logits(module, data.test.images, batch=500)
    pieces = logits(module, data.test.images, batch=7)
    torch.testing.assert_close(whole, pieces, rtol=1e-5, atol=1e-5)
    assert module.training
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_the_measures_agree(data: Dataset) -> None:
    module = small()
    answers = predictions(module, data.test.images)
    assert answers.shape == (500,)
    share = float((answers == data.test.labels).double().mean())
    assert accuracy(module, data.test.images, data.test.labels) == share
    assert accuracy(module, data.test.images, answers) == 1.0
    assert loss_and_accuracy(module, data.test.images, data.test.labels)[1] == share
