"""The subcommands of `python -m converter`: each file adds its arguments and runs."""

# name -> (module, help). Modules are imported when asked for: torch takes seconds.
COMMANDS = {
    "fold": ("converter.commands.fold", "fold the batch-norms of a model and prove it"),
    "inspect": ("converter.commands.inspect", "show what fold would do"),
    "verify": ("converter.commands.verify", "prove that two ONNX files compute the same"),
    "bench": ("converter.commands.bench", "measure how two ONNX files compare in speed"),
    "finetune": (
        "converter.finetuning.command",
        "learn a new task from a trained network, batch-norms frozen",
    ),
    "recalibrate": (
        "converter.statistics.command",
        "replace moving averages by the statistics of a data set",
    ),
    "train": ("converter.training.command", "train a network, by default the one that ships"),
    "compare": ("converter.commands.compare", "moved: python -m experiments"),
}
