"""`python -m steerstats.cli`, where the console script is not on the path."""

from steerstats.cli import main

main()
