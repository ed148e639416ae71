"""`python -m dsf`: the command line."""

from dsf.cli import main

if __name__ == "__main__":
    main()
