"""``python -m vimvol`` is the command line."""

from vimvol.cli import main

if __name__ == "__main__":
    main()
