"""The subcommands of the command line. What each takes is declared in `options/`, a class each."""

from typing import NamedTuple


class Command(NamedTuple):
    """One subcommand. This table is read without any library, by programs that only list it.

    Attributes:
        module: has `run`, which takes what is declared; it imports what the work needs.
        summary: one line for the list of commands.
        examples: command lines without the program's name, each with what it does.
    """

    module: str
    summary: str
    examples: tuple[tuple[str, str], ...]


# No module is imported before its command is asked for: torch takes seconds.
COMMANDS = {
    "fold": Command(
        "converter.commands.fold",
        "fold the batch-norms of a model and prove it",
        (
            ("fold model.onnx", "write model.folded.onnx beside it"),
            ("fold model.pt --publish models/mine", "write a version that the service serves"),
            (
                "fold w.pth --arch timm:resnet18 --input-shape 3,224,224",
                "a file that holds weights only",
            ),
        ),
    ),
    "inspect": Command(
        "converter.commands.inspect",
        "show what fold would do",
        (
            ("inspect model.onnx", "which batch-norms would fold, and why others stay"),
            (
                "inspect model.onnx --explain 'layer1.*'",
                "their way through the graph, step by step",
            ),
        ),
    ),
    "verify": Command(
        "converter.commands.verify",
        "prove that two ONNX files compute the same",
        (
            ("verify model.onnx model.folded.onnx", "on random inputs, against float64"),
            ("verify a.onnx b.onnx --data inputs.npz", "on inputs of your own as well"),
            ("verify a.onnx b.onnx --certify", "for every input, and measured"),
            ("verify a.onnx b.onnx --certify=only", "for every input, in seconds, nothing is run"),
        ),
    ),
    "bench": Command(
        "converter.commands.bench",
        "measure how two ONNX files compare in speed",
        (("bench model.onnx model.folded.onnx --batch 1 --batch 32", "two sizes of a batch"),),
    ),
    "finetune": Command(
        "converter.commands.finetune",
        "learn a new task from a trained network, batch-norms frozen",
        (
            ("finetune model.pt --dataset pictures/ --image-size 64", "a folder of pictures"),
            ("finetune --arch timm:resnet18 --dataset new.npz", "start from random weights"),
        ),
    ),
    "recalibrate": Command(
        "converter.commands.recalibrate",
        "replace moving averages by the statistics of a data set",
        (
            ("recalibrate model.pt --data training.npz", "write model.recalibrated.pt beside it"),
            (
                "recalibrate model.pt --data training.npz --dry-run",
                "only show how far they are off",
            ),
        ),
    ),
    "train": Command(
        "converter.commands.train",
        "train a network, by default the one that ships",
        (
            ("train", "the network that ships, on MNIST"),
            (
                "train --arch resnet --dataset pictures/ --image-size 64",
                "a network for a folder of pictures",
            ),
            ("train --epochs 30 --validation 0.1 --patience 3", "stop when it gets no better"),
        ),
    ),
    "compare": Command("converter.commands.compare", "moved: python -m experiments", ()),
}
