"""Experiments that reproduce the quality figures in README.md and docs/ablations.md."""
