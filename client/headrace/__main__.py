"""``python -m headrace``: the same as the command ``headrace``."""

import sys

from headrace.process.import_path import leave_current_directory

if __name__ == "__main__":
    leave_current_directory()  # before more is imported

    from headrace.cli.main import main

    sys.exit(main())
