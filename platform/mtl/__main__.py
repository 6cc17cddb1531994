"""``python -m mtl``: the command line without the console script."""

from mtl.cli import main

main()
