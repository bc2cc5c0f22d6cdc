"""What papers and tutorials say of batch normalization, as a table of things to measure.

A row names a claim, the runs that test it, and its parts: numbers with the range in which they
must lie for the claim to hold. See `examining`.
"""

from __future__ import annotations

from dataclasses import replace

from converter.architectures.style import Activation
from experiments import measures
from experiments.examining import Claim, Part
from experiments.settings import Optimizer, Settings

PAPER = "Ioffe and Szegedy 2015 (arXiv 1502.03167)"
RENORM = "Ioffe 2017 (arXiv 1702.03275)"

CHANCE = 0.2  # twice what guessing gives: below, nothing was learnt
LEARNT = 0.8

_MLP = Settings(arch="mlp", optimizer="sgd", lr=0.01, batch_size=64, epochs=5, evaluations=5)
_CNN3 = Settings(arch="cnn3", optimizer="sgd", lr=0.01, batch_size=64, epochs=2, evaluations=2)
_NORMS = ("none", "batch")


def _learning(activation: Activation, optimizer: Optimizer) -> Claim:
    plain = measures.of(measures.accuracy, norm="none")
    batch = measures.of(measures.accuracy, norm="batch")
    parts: tuple[Part, ...]
    if activation == "sigmoid":
        sentence = (
            "With sigmoid at learning rate 0.01 the plain network of three convolutions fails to "
            "learn, and the one with batch-norm learns"
        )
        parts = (
            Part(f"plain: accuracy below {CHANCE:.0%}", plain, high=CHANCE),
            Part(f"batch-norm: accuracy above {LEARNT:.0%}", batch, low=LEARNT),
        )
    else:
        sentence = (
            "With relu at learning rate 0.01 both networks of three convolutions learn, and the "
            "one with batch-norm is better"
        )
        parts = (
            Part(f"plain: accuracy above {LEARNT:.0%}", plain, low=LEARNT),
            Part(f"batch-norm: accuracy above {LEARNT:.0%}", batch, low=LEARNT),
            Part(
                "batch-norm less plain: above 0", measures.less(batch, plain), low=0, unit="points"
            ),
        )
    return Claim(
        name=f"{activation}-{optimizer}",
        sentence=f"{sentence} ({_NAMES[optimizer]}).",
        source="tutorials; " + PAPER + ", section 4.2.2 for sigmoid",
        common=replace(_CNN3, activation=activation, optimizer=optimizer),
        axes={"norm": _NORMS},
        seeds=3,
        parts=parts,
        note="The sources name no optimiser: tested with both, as two claims. Two epochs. The "
        "network has max-pooling behind its first two convolutions.",
    )


def _mlp(optimizer: Optimizer) -> Claim:
    return Claim(
        name=f"mlp-{optimizer}",
        sentence="The network 784-256-128-10 reaches about 97 % without and 98 to 99 % with "
        f"batch-norm in 5 epochs at learning rate 0.01 ({_NAMES[optimizer]}).",
        source="tutorials",
        common=replace(_MLP, optimizer=optimizer),
        axes={"norm": _NORMS},
        seeds=5,
        parts=(
            Part(
                "plain: accuracy between 96 % and 98 %",
                measures.of(measures.accuracy, norm="none"),
                low=0.96,
                high=0.98,
            ),
            Part(
                "batch-norm: accuracy between 98 % and 99 %",
                measures.of(measures.accuracy, norm="batch"),
                low=0.98,
                high=0.99,
            ),
        ),
        note="The source names no optimiser: tested with both, as two claims.",
    )


_NAMES = {"sgd": "stochastic gradient descent", "adam": "Adam"}
_SCALES = (0.1, 1.0, 10.0)
_TINY = (2, 4, 8)


def _small_batches(name: str, sentence: str, source: str, parts: tuple[Part, ...]) -> Claim:
    return Claim(
        name=name,
        sentence=sentence,
        source=source,
        common=replace(_MLP, epochs=1, evaluations=2, norm="batch", recalibrate=True),
        axes={"batch_size": (*_TINY, 64), "norm": ("none", "batch", "renorm")},
        seeds=3,
        parts=parts,
        note="One epoch. The batch of 64 is there to compare. Moving averages with torch's "
        "momentum, 0.1.",
    )


def _tiny(b: int) -> Part:
    return Part(
        f"batch {b}: plain less batch-norm, above 0",
        measures.less(
            measures.of(measures.accuracy, norm="none", batch_size=b),
            measures.of(measures.accuracy, norm="batch", batch_size=b),
        ),
        low=0,
        unit="points",
    )


def _remedies(b: int) -> tuple[Part, Part]:
    batch = measures.of(measures.accuracy, norm="batch", batch_size=b)
    return (
        Part(
            f"batch {b}: recalibrated less moving average, above 0",
            measures.less(measures.of(measures.recalibrated, norm="batch", batch_size=b), batch),
            low=0,
            unit="points",
            either=f"batch {b}",
        ),
        Part(
            f"batch {b}: batch renorm less batch-norm, above 0",
            measures.less(measures.of(measures.accuracy, norm="renorm", batch_size=b), batch),
            low=0,
            unit="points",
            either=f"batch {b}",
        ),
    )


def _position(activation: str) -> Part:
    return Part(
        f"{activation}: before less after, above 0",
        measures.less(
            measures.of(measures.accuracy, activation=activation, bn_position="before"),
            measures.of(measures.accuracy, activation=activation, bn_position="after"),
        ),
        low=0,
        unit="points",
    )


CLAIMS: tuple[Claim, ...] = (
    _learning("sigmoid", "sgd"),
    _learning("sigmoid", "adam"),
    _learning("relu", "sgd"),
    _learning("relu", "adam"),
    _mlp("sgd"),
    _mlp("adam"),
    Claim(
        name="steps",
        sentence="With batch-norm, the accuracy that the plain network reaches at best is there "
        "in less than half of the steps.",
        source=PAPER + ", section 4.2.2 and figure 3",
        common=_MLP,
        axes={"norm": _NORMS},
        seeds=5,
        parts=(
            Part(
                "fraction of the plain network's steps, below 0.5",
                measures.fraction_of_steps(norm="batch"),
                high=0.5,
                unit="",
            ),
        ),
        note="The paper says so of Inception on ImageNet; this is the network 784-256-128-10, "
        "validated five times an epoch.",
    ),
    Claim(
        name="shift",
        sentence="Batch-norm makes the inputs of the layers change their distribution less while "
        "the network learns.",
        source=PAPER + ", section 2 and figure 1",
        common=_MLP,
        axes={"norm": _NORMS},
        seeds=5,
        parts=(
            Part(
                "mean drift of the inputs of hidden layers, plain less batch-norm, above 0",
                measures.less(
                    measures.of(measures.mean_drift, norm="none"),
                    measures.of(measures.mean_drift, norm="batch"),
                ),
                low=0,
                unit="",
            ),
        ),
        note="Drift: how many standard deviations a channel's mean moves from one snapshot to "
        "the next, on a batch that stays the same.",
    ),
    Claim(
        name="init",
        sentence="With batch-norm the result depends less on the scale of the initial weights.",
        source=PAPER + ", abstract and section 3.3; tutorials",
        common=replace(_MLP, epochs=2, evaluations=1),
        axes={"init_scale": _SCALES, "norm": _NORMS},
        seeds=3,
        parts=(
            Part(
                "best less worst accuracy over the scales, plain less batch-norm, above 0",
                measures.less(
                    measures.spread(measures.accuracy, "init_scale", _SCALES, norm="none"),
                    measures.spread(measures.accuracy, "init_scale", _SCALES, norm="batch"),
                ),
                low=0,
                unit="points",
            ),
        ),
        note="Weights as torch initialises them, times 0.1, 1 and 10. Two epochs.",
    ),
    Claim(
        name="dropout",
        sentence="Batch-norm regularises: the gap between training and validation is smaller, and "
        "dropout can be removed.",
        source=PAPER + ", sections 3.4 and 4.2.1",
        common=replace(_MLP, optimizer="adam", lr=0.001, epochs=10, evaluations=1),
        axes={"dropout": (0.0, 0.5), "norm": _NORMS},
        seeds=5,
        parts=(
            Part(
                "gap without dropout, plain less batch-norm, above 0",
                measures.less(
                    measures.of(measures.gap, norm="none", dropout=0.0),
                    measures.of(measures.gap, norm="batch", dropout=0.0),
                ),
                low=0,
                unit="points",
            ),
            Part(
                "batch-norm: accuracy without dropout less with 0.5, above -0.1 points",
                measures.less(
                    measures.of(measures.accuracy, norm="batch", dropout=0.0),
                    measures.of(measures.accuracy, norm="batch", dropout=0.5),
                ),
                low=-0.001,
                unit="points",
            ),
        ),
        note="10 epochs, Adam at 0.001.",
    ),
    _small_batches(
        "small-batches",
        "Batch-norm does harm with tiny batches of 2, 4 and 8: the plain network is better there.",
        RENORM + ", section 1; tutorials",
        tuple(_tiny(b) for b in _TINY),
    ),
    _small_batches(
        "small-batch-remedies",
        "With tiny batches, recalibrated statistics or batch renormalization give back accuracy.",
        RENORM + ", section 4.2; fvcore's precise batch-norm",
        tuple(part for b in _TINY for part in _remedies(b)),
    ),
    Claim(
        name="position",
        sentence="Batch-norm before the activation is better than behind it.",
        source=PAPER + ", section 3.2 puts it before; tutorials disagree",
        common=_MLP,
        axes={"activation": ("relu", "sigmoid"), "bn_position": ("before", "after")},
        seeds=5,
        parts=(_position("relu"), _position("sigmoid")),
    ),
)
