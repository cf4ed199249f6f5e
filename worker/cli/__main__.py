"""`python -m worker.cli`: the `eventstream` command where its script is not installed."""

from worker.cli.main import main

main(prog_name="eventstream")
