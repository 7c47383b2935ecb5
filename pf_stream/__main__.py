"""``python -m pf_stream`` is ``pf``."""

from pf_stream.cli import main

main()
