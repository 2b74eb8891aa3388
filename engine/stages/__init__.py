"""The stages of the pipelines: one callable class per file."""
