"""What the command lines about signatures have in common: the version that is meant."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from service.models.folders import NAME, VERSION
from service.store.address import is_address

NEEDS_EXTRA = "signatures need the package cryptography: pip install 'foldserve[signing]'."
_WIDTH = 96


class Wrong(Exception):
    """What was asked cannot be done; the text is a sentence."""


def parser(program: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A command line with a version, for `version_folder`."""
    made = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog=epilog,
        formatter_class=partial(argparse.HelpFormatter, width=_WIDTH),
        allow_abbrev=False,
    )
    made.add_argument(
        "version",
        metavar="models/NAME[/VERSION]",
        help="the folder of a version, or of a model, whose highest version is meant",
    )
    return made


def add_file(made: argparse.ArgumentParser, flag: str, meaning: str, **how: bool) -> None:
    """A PEM file that the command line names."""
    made.add_argument(flag, type=Path, metavar="FILE", help=f"PEM file of {meaning}", **how)  # type: ignore[arg-type]


def version_folder(path: str) -> Path:
    """The folder of the version in `path`, or of the highest one if that is a model's.

    Raises:
        Wrong: there is none, or it is not called as a version of a model is.
    """
    if is_address(path):
        raise Wrong(f"{path} is an address: copy the version into a folder models/NAME/VERSION.")
    folder = Path(os.path.abspath(path))  # noqa: PTH100  links are not to be followed
    if not folder.is_dir():
        raise Wrong(f"there is no folder {path}.")
    try:
        inside = [int(each.name) for each in folder.iterdir() if VERSION.fullmatch(each.name)]
    except OSError as error:
        raise Wrong(f"{path} cannot be read: {error.strerror}.") from None
    if inside:
        folder = folder / str(max(inside))
    if not VERSION.fullmatch(folder.name) or not NAME.fullmatch(folder.parent.name):
        raise Wrong(
            f"{path} is not a models/NAME/VERSION and has no version: NAME and VERSION are "
            "signed, so the folders must have them."
        )
    return folder
