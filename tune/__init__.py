"""The search for alpha, beta and the number of steps with Ray Tune."""

from jobs.cli.start import start_of

start_of(__name__)
