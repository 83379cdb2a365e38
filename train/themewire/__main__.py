"""`python -m themewire`."""

from themewire.cli import main

main()
