"""Settings out of flags and variables, or out of a program; mistakes are told in sentences."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from service.settings import PREFIX, Settings
from service.version import program_version

PROGRAM = "python -m service"

# Kubernetes sets these by itself in every pod beside a Service named "foldserve".
_SERVICE_LINK = re.compile(r"FOLDSERVE_(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP|SCTP))(_\w+)?")

# Empty variables are passed over. These come out of a secret that may be missing.
_NEVER_EMPTY = {
    f"{PREFIX}API_KEYS_FILE": "everybody may ask",
    f"{PREFIX}REQUIRE_SIGNATURE": "signatures are not required",
    f"{PREFIX}TLS_CERTIFICATE": "everything is sent in the clear",
    f"{PREFIX}TLS_CLIENT_CA": "every client may come in",
}


class SettingsError(ValueError):
    """A flag or variable is unknown or has a value that cannot be used."""


def parse(argv: Sequence[str], environ: Mapping[str, str], *, prog: str = PROGRAM) -> Settings:
    """Settings from flags and from the process's environment.

    Args:
        argv: the flags, without the program's name.
        environ: os.environ, searched here for misspelled FOLDSERVE_ variables.
        prog: what the help calls the program.

    Raises:
        SettingsError: an unknown variable or an unusable value; the text names each.
        SystemExit: argparse's own, code 2 for an unknown flag, 0 after --help.
    """
    parser = _parser(prog)
    known, unknown = parser.parse_known_args(argv)
    if unknown:
        said = unknown[0].partition("=")[0]
        meant = _meant(said, map(flag, Settings.model_fields))
        parser.error(f"unknown argument {said}{'.' + meant if meant else ' (--help lists all)'}")
    flags = {k: v for k, v in vars(known).items() if v is not None}
    _refuse_unknown(environ)
    try:
        return Settings(**flags)
    except ValidationError as error:
        raise SettingsError(
            _sentences(error, lambda n: flag(n) if n in flags else variable(n))
        ) from None


class _Given(Settings):
    """Settings without an environment."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def given(values: Mapping[str, Any]) -> Settings:
    """Settings from a program that says them itself: no flags, and no environment.

    Args:
        values: by the names of the fields; the others have their defaults.

    Raises:
        SettingsError: an unknown name or an unusable value; the text names each.
    """
    for name in values:
        if name not in Settings.model_fields:
            meant = _meant(name, Settings.model_fields)
            raise SettingsError(f"{name} is not a setting of the service.{meant}")
    try:
        return _Given(**values)
    except ValidationError as error:
        raise SettingsError(_sentences(error, str)) from None


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [--models FOLDER] [--port PORT] [--SETTING VALUE ...]",
        description="Answer predictions from the ONNX models of a repository.",
        epilog="Each flag has an environment variable, for example FOLDSERVE_PORT for --port.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"Foldserve {program_version()}")
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f" (default: {field.default})"
        parser.add_argument(flag(name), metavar="VALUE", help=f"{field.description}{default}")
    return parser


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = set(map(variable, Settings.model_fields))
    for name in sorted(environ):
        upper = name.upper()  # pydantic-settings ignores the case, so this does too
        if upper in _NEVER_EMPTY and not environ[name]:
            raise SettingsError(
                f"{name} is set and empty, which must not mean that {_NEVER_EMPTY[upper]}. "
                "Give it a file, or unset it."
            )
        if not upper.startswith(PREFIX) or upper in known or _SERVICE_LINK.fullmatch(upper):
            continue
        raise SettingsError(f"{name} is not a setting of this server.{_meant(upper, known)}")


def _meant(said: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(said, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _sentences(error: ValidationError, source_of: Callable[[str], str]) -> str:
    lines = []
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0])
        source = source_of(name)
        why = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "string_pattern_mismatch":
            why = f"it sets the {Settings.model_fields[name].description}"
        elif detail["type"] in {"int_parsing", "float_parsing"}:
            why = "it must be a number" if detail["type"][0] == "f" else "it must be a whole number"
        lines.append(f"{source}={detail['input']!r} cannot be used: {why}.")
    return "\n".join(lines)


def flag(name: str) -> str:
    """`--max-body-bytes` of the field max_body_bytes."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """FOLDSERVE_MAX_BODY_BYTES of the same."""
    return PREFIX + name.upper()
