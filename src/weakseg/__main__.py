"""`python -m weakseg`."""

from weakseg.cli import main

if __name__ == "__main__":
    main()
