"""What users run: ``python -m jobs.NAME``."""

from jobs.cli.start import start_of

start_of(__name__)
