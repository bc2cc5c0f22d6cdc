"""`fold`: fold the batch-norms of a model, prove it, write it and publish it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from converter.commands import limits, loading, output
from converter.errors import UserError
from converter.files.onnx_file import write_onnx
from converter.folding import FoldOptions
from converter.pipeline import FoldResult, fold
from converter.proof import load_data
from converter.publishing import curves
from converter.publishing.remote import open_store
from converter.publishing.versions import Published, check_folder, publish
from converter.report.facts import EXIT_CODES, describe_fold
from converter.report.provenance import describe_provenance
from converter.report.terminal import show_fold, show_source, terminal, working
from converter.sources import Loaded
from service.manifest import Classification
from service.store.address import is_address, scheme


def add_arguments(parser: argparse.ArgumentParser) -> None:
    loading.add_arguments(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: FILE.folded.onnx"
    )
    parser.add_argument(
        "--publish",
        metavar="models/NAME",
        help="write models/NAME/<next version>/; also s3://bucket/models/NAME and the like",
    )
    parser.add_argument(
        "--if-changed",
        action="store_true",
        help="with --publish: no new version if the newest is this very model",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="a classifier's labels, one a line"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="fold only these (layer1.*)"
    )
    parser.add_argument(
        "--skip", action="append", default=[], metavar="PATTERN", help="leave these"
    )
    parser.add_argument(
        "--through-relu",
        action="store_true",
        help="let a Relu become a maximum with one number a channel, where that folds more",
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE.npz", help="prove it on these inputs as well"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs (default 0)")
    limits.add_arguments(parser)
    output.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0: folded and proven. 1: the folded model differs, 3: it could not be measured whether it
    does; then nothing is written.

    Raises:
        UserError: the input is at fault (exit code 2).
    """
    console = terminal()
    _check(args)
    with limits.memory(args), working(f"loading {args.file}") as progress:
        loaded = loading.load_from(args)
        if args.labels:
            loaded = _labelled(loaded, args.labels)
        data = load_data(args.data, loaded.inputs) if args.data else None
        result = fold(
            loaded,
            FoldOptions(args.only, args.skip, args.through_relu),
            data=data,
            seed=args.seed,
            progress=progress,
        )
    show_source(console, loaded)
    show_fold(console, result)
    report = describe_fold(result) | {"provenance": describe_provenance(args.file, args.arguments)}
    if not result.proof.passed:
        console.print(Text("Nothing was written.", style="bold red"))
        _write_reports(args, report | {"written": []}, result)
        return EXIT_CODES[result.proof.verdict]
    written: list[str] = []
    if args.publish:
        published = publish(result, args.publish, if_changed=args.if_changed)
        _show_published(console, published)
        for name, why in published.left_out.items():
            console.print(Text(f"Output {name!r} is not served: {why}.", style="yellow"))
        _show_curves(console, args.file)
        written.append(str(published.path))
    if args.output or not args.publish:
        for path in write_onnx(result.model, args.output or default_output(args.file)):
            console.print(Text(f"Wrote {path}"))
            written.append(str(path))
    _write_reports(args, report | {"written": written}, result)
    return 0


def _write_reports(args: argparse.Namespace, report: dict[str, Any], result: FoldResult) -> None:
    output.write_json(args.json, report)
    output.write_html(args.html, report, result.original, result.plan)


def default_output(file: Path) -> Path:
    """`model.pt` -> `model.folded.onnx`, beside it."""
    file = file if file.name else file.resolve()  # "." has no name
    return file.with_name(f"{file.stem}.folded.onnx")


def _check(args: argparse.Namespace) -> None:
    """Find mistakes before minutes of work, not after."""
    if args.if_changed and not args.publish:
        raise UserError("--if-changed goes with --publish.")
    for path in (args.data, args.labels):
        if path and not path.is_file():
            raise UserError(f"there is no file {path}.")
    if args.publish and is_address(args.publish):
        if scheme(args.publish) != "file":
            open_store(args.publish)
    elif args.publish:
        check_folder(Path(args.publish))
    folded = args.output or (None if args.publish else default_output(args.file))
    output.check((folded, args.json, args.html), args.file)


def _labelled(loaded: Loaded, path: Path) -> Loaded:
    try:
        labels = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the labels from {path}: {error}.") from error
    labels = [label for label in labels if label]
    first = loaded.model.graph.outputs[0]
    width = first.shape[-1] if first.shape is not None and len(first.shape) == 2 else None
    if width != len(labels):
        raise UserError(
            f"{path} has {len(labels)} labels, but the output {first.name!r} has "
            f"{'an unknown number of' if width is None else width} classes.",
            "One label a line, in the order of the classes.",
        )
    node = first.producer()
    activation = {"Softmax": "none", "LogSoftmax": "exp"}.get(
        node.op_type if node is not None else "", "softmax"
    )
    return replace(
        loaded,
        classification=Classification.model_validate(
            {"output": first.name, "labels": labels, "activation": activation}
        ),
    )


def _show_published(console: Console, published: Published) -> None:
    if published.fresh:
        console.print(Text(f"Published {published.path}", style="bold"))
    else:
        console.print(Text(f"{published.path} is this very model already; nothing published."))


def _show_curves(console: Console, file: Path) -> None:
    """Say it when the training curves beside the file were left out."""
    try:
        curves.read(file)
    except curves.CurvesUnusable as error:
        console.print(Text(f"Published without training curves: {error}.", style="yellow"))
