"""`python -m flux`."""

from flux.surfaces.cli.main import main

main()
