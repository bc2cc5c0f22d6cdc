"""`fold`: fold the batch-norms of a model, prove it, write it and publish it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from converter.commands import limits, loading, output
from converter.commands.options.fold import Fold
from converter.errors import UserError
from converter.files.onnx_file import write_onnx
from converter.folding import FoldOptions
from converter.pipeline import FoldResult, fold
from converter.proof import load_data
from converter.publishing import curves
from converter.publishing.remote import open_store
from converter.publishing.signing import signing_key
from converter.publishing.versions import Published, check_folder, publish
from converter.report.console import terminal, working
from converter.report.facts import EXIT_CODES, describe_fold
from converter.report.provenance import describe_provenance
from converter.report.terminal import show_fold, show_source
from converter.sources import Loaded
from service.manifest import Classification
from service.store.address import is_address, scheme


def run(asked: Fold) -> int:
    """0: folded and proven. 1: the folded model differs, 3: it could not be measured whether it
    does; then nothing is written.

    Raises:
        UserError: the input is at fault (exit code 2).
    """
    console = terminal()
    _check(asked)
    key = signing_key(asked.sign, asked.sign_chain) if asked.sign else None
    with limits.memory(asked.proving.max_memory), working(f"loading {asked.file}") as progress:
        loaded = loading.load_from(asked.file, asked.reading, data=asked.proving.data)
        if asked.labels:
            loaded = _labelled(loaded, asked.labels)
        data = load_data(asked.proving.data, loaded.inputs) if asked.proving.data else None
        result = fold(
            loaded,
            FoldOptions(**vars(asked.choice)),
            data=data,
            seed=asked.proving.seed,
            progress=progress,
        )
    show_source(console, loaded)
    show_fold(console, result)
    report = describe_fold(result) | {"provenance": describe_provenance(asked.file)}
    if not result.proof.passed:
        console.print(Text("Nothing was written.", style="bold red"))
        _write_reports(asked, report | {"written": []}, result)
        return EXIT_CODES[result.proof.verdict]
    written: list[str] = []
    if asked.publish:
        published = publish(result, asked.publish, if_changed=asked.if_changed, key=key)
        _show_published(console, published)
        for name, why in published.left_out.items():
            console.print(Text(f"Output {name!r} is not served: {why}.", style="yellow"))
        _show_curves(console, asked.file)
        written.append(str(published.path))
    if asked.output or not asked.publish:
        for path in write_onnx(result.model, asked.output or default_output(asked.file)):
            console.print(Text(f"Wrote {path}"))
            written.append(str(path))
    _write_reports(asked, report | {"written": written}, result)
    return 0


def _write_reports(asked: Fold, report: dict[str, Any], result: FoldResult) -> None:
    output.write_json(asked.reports.json, report)
    output.write_html(asked.reports.html, report, result.original, result.plan)


def default_output(file: Path) -> Path:
    """`model.pt` -> `model.folded.onnx`, beside it."""
    file = file if file.name else file.resolve()  # "." has no name
    return file.with_name(f"{file.stem}.folded.onnx")


def _check(asked: Fold) -> None:
    """Find mistakes before minutes of work, not after."""
    if asked.if_changed and not asked.publish:
        raise UserError("--if-changed goes with --publish.")
    if asked.sign and not asked.publish:
        raise UserError("--sign goes with --publish.")
    if asked.sign_chain and not asked.sign:
        raise UserError("--sign-chain goes with --sign.")
    for path in (asked.proving.data, asked.labels):
        if path and not path.is_file():
            raise UserError(f"there is no file {path}.")
    if asked.publish and is_address(asked.publish):
        if scheme(asked.publish) != "file":
            open_store(asked.publish)
    elif asked.publish:
        check_folder(Path(asked.publish))
    folded = asked.output or (None if asked.publish else default_output(asked.file))
    output.check((folded, asked.reports.json, asked.reports.html), asked.file)


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
