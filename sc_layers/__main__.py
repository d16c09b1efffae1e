"""`python -m sc_layers` is the command `sc-layers`."""

from .cli import main

main(prog_name="sc-layers")
