"""`python -m foldserve`: the command, where its script is not on the PATH."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # `python -m` puts the current folder in front of everything, the command's script does not.
    if not sys.flags.safe_path and Path(sys.path[0]) == Path.cwd():
        del sys.path[0]
    from foldserve.command import main

    sys.exit(main())
