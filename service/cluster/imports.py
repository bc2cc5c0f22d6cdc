"""Ray's processes import this package, whatever else is called `service` where it is started.

Ray puts the current folder of whoever connects in front of the path of its processes, and they
inherit PYTHONPATH; a replica, which is sent as a name to import, would then be another's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import chdir, contextmanager
from importlib.machinery import PathFinder
from pathlib import Path

import service

PACKAGE = Path(service.__file__).resolve().parent


@contextmanager
def of_this_package(environ: MutableMapping[str, str]) -> Iterator[None]:
    """To be around `ray.init`. No setting is a relative path by then: replicas get whole ones.

    Args:
        environ: os.environ, in which PYTHONPATH gets this package's folder in front if another
            `service` is found by it.
    """
    home = str(PACKAGE.parent)
    given = environ.get("PYTHONPATH", "")
    with chdir(home):  # where empty and relative entries of PYTHONPATH lead, for Ray's processes
        spec = PathFinder.find_spec("service", given.split(os.pathsep)) if given else None
        if spec and spec.origin and Path(spec.origin).resolve().parent != PACKAGE:
            environ["PYTHONPATH"] = os.pathsep.join([home, given])
        yield
