"""`python -m bench.cli`, as `lerpbench`."""

from bench.cli import command

command()
