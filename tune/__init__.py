"""Hyperparameter search for the walk, the CAM scales, the dCRF and the seeds, with Ray Tune."""

from jobs.cli.start import start_of

start_of(__name__)
