"""The steps of the pipelines: one callable class a file."""
