"""The page of a run: what it made of every photo, and its figures, in one file."""
