"""The metrics of the replicas of one node, whichever of them is asked.

As with --workers, but no supervisor makes and removes the folder: it is named for the session of
Ray, and pages that have not been written for a while belong to replicas that are gone. On a cluster
of several nodes an answer has the replicas of one node.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from service.telemetry.pages import PAGES, SharedPages

_GONE_S = 5.0


class NodePages(SharedPages):
    """One replica's view of the folder.

    Args:
        session: a name that the replicas of one cluster share, and no others.
        index: of this replica; its process id.
    """

    def __init__(self, session: str, index: int) -> None:
        super().__init__(_folder(session), index)

    def others(self, end: str = PAGES) -> list[str]:
        """The pages of the replicas of this node that are alive."""
        oldest = time.time() - _GONE_S
        for path in self._folder.glob(f"*{end}"):
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink()
            except OSError:
                continue
        return super().others(end)


def _folder(session: str) -> Path:
    """A folder of this user alone: a name in /tmp that another user has taken is not used."""
    folder = Path(tempfile.gettempdir()) / f"foldserve-{os.getuid()}-{session}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if status.st_uid == os.getuid() and status.st_mode & 0o077 == 0 and not folder.is_symlink():
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="foldserve-"))
