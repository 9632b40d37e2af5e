"""``python -m leyden.cli``."""

from leyden.cli import main

main()
