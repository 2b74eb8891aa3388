"""Compute resources and parallelism: the part of the settings that does not change results. A leaf."""

from __future__ import annotations

from dataclasses import dataclass

from engine.checks import require, require_at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """How encoded images are converted to RGB."""

    max_pixels: int = 100_000_000
    """Larger images become error rows."""
    bands: tuple[int, ...] = ()
    """Indices, from 0, of the red, green and blue bands, or of a single gray band; by default as the file says."""
    value_range: tuple[float, ...] = ()
    """Values of black and white in images with more than 8 bits; by default the full range of the format."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PassConfig:
    """How a stage processes images."""

    device: str = "cpu"
    """torch device."""
    images_per_pass: int = 1
    """Images of equal size per forward pass."""
    decoding: Decoding = Decoding()
    """How the images become RGB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceConfig:
    """Compute resources and parallelism; may be changed when resuming. Results then differ by rounding only."""

    num_gpus: float = 0.0
    """GPUs per actor or training worker that runs a network; 0 uses CPUs."""
    num_workers: int = 1
    """Training workers."""
    min_workers: int = 0
    """Minimum number of training workers to continue with after losing nodes; 0 waits for all."""
    max_worker_failures: int = 3
    """Restarts after losing a worker, without a new checkpoint in between, before training fails."""
    checkpoint_every_steps: int = 500
    """Training steps between two checkpoints; there is also one after each epoch."""
    max_network_actors: int = 0
    """Maximum number of actors that run networks in a pipeline; 0 uses what the cluster offers."""
    max_crf_actors: int = 0
    """Maximum number of dCRF actors; 0 uses what the cluster offers."""
    max_loader_actors: int = 2
    """Maximum number of actors that decode and augment for one training worker."""
    training_threads: int = 0
    """CPU threads per training worker; 0 divides the machine's cores among the workers."""
    threads_per_actor: int = 1
    """CPU threads per actor that runs a network."""
    images_per_pass: int = 1
    """Images of equal size per forward pass (jobs.check_tags: one); 1 suits CPUs, 16 or more GPUs."""
    fetch_threads: int = 16
    """Images that one actor fetches from storage at the same time."""

    def __post_init__(self) -> None:
        require_at_least(
            1,
            num_workers=self.num_workers,
            threads_per_actor=self.threads_per_actor,
            images_per_pass=self.images_per_pass,
            fetch_threads=self.fetch_threads,
            max_loader_actors=self.max_loader_actors,
            checkpoint_every_steps=self.checkpoint_every_steps,
        )
        require_at_least(
            0,
            num_gpus=self.num_gpus,
            max_network_actors=self.max_network_actors,
            max_crf_actors=self.max_crf_actors,
            training_threads=self.training_threads,
            max_worker_failures=self.max_worker_failures,
        )
        fits = 0 <= self.min_workers <= self.num_workers
        require(fits, "min_workers", self.min_workers, f"0 to num_workers {self.num_workers}")

    @property
    def device(self) -> str:
        """The torch device of a stage or worker that runs a network."""
        return "cuda" if self.num_gpus > 0 else "cpu"

    def passes(self, decoding: Decoding) -> PassConfig:
        """How a stage processes images with these resources."""
        return PassConfig(device=self.device, images_per_pass=self.images_per_pass, decoding=decoding)
