"""`python -m steerstats`, where the console script is not on the path."""

from steerstats.cli import main

if __name__ == "__main__":
    main()
