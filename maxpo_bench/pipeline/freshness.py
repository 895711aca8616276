"""Whether a result was computed on this machine. Said by `plan` and `compare`, never by the report. Imports no torch."""

from pathlib import Path


def computed_here(folder):
    """Whether this machine computed a cell: its checkpoints folder, which is never committed, is there. It is empty where
    the policies are too large to keep."""
    return (Path(folder) / "checkpoints").is_dir()
