"""`python -m service`: settings, log, server; every failure is a sentence and an exit code.

0 stopped by a signal or --help, 1 the server cannot start here, 2 a setting is wrong.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from service.listen import CannotStart
from service.settings import Settings
from service.settings_read import PROGRAM, SettingsError, parse
from service.telemetry.logs import configure
from service.version import program_version

if TYPE_CHECKING:
    from service.worker import Worker


def main(argv: Sequence[str] | None = None, *, prog: str = PROGRAM) -> int:
    """The exit code. `argv` without the program's name, default sys.argv; `prog` is that name."""
    try:
        settings = parse(sys.argv[1:] if argv is None else argv, os.environ, prog=prog)
    except SettingsError as error:
        sys.stderr.write(f"{error}\nTry: {prog} --help\n")
        return 2
    configure(settings.log_level, settings.log_format)
    try:
        if settings.engine == "ray":
            return _serve_on_ray(settings)
        if settings.workers > 1:
            from service.workers import supervise

            return supervise(settings, partial(_serve, settings))
        return _serve(settings)
    except CannotStart as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _serve(settings: Settings, worker: Worker | None = None) -> int:
    # After the settings, so that a typo is answered before anything heavy is imported, and
    # after the fork, so that the supervisor stays small.
    from service.device import DeviceUnavailable
    from service.server import serve

    try:
        return serve(settings, program_version(), worker)
    except (CannotStart, DeviceUnavailable) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _serve_on_ray(settings: Settings) -> int:
    from service.cluster.run import run

    return run(settings, program_version())


if __name__ == "__main__":
    sys.exit(main())
