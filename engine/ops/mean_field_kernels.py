"""Compiled loops for filtering and mean-field inference on the permutohedral lattice (numba, one thread, no GIL).

Sources: Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (2010); Krähenbühl and
Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (2011); pydensecrf, whose rounding
this follows operation by operation.

Letters: N = H * W pixels, M vertices of the lattice, K labels, S unaries, C = S * (K - 1) channels, stored in G groups
of L lanes. Vertex 0 stands for "no vertex" and is always zero.

Compiled functions here call none from other files, because numba's disk cache only tracks changes to a function's own
file.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import models, register_model
from numpy.typing import NDArray

from engine.ops.compiled import compiled_as_written

Scalar = np.floating[Any]
Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]

_BLOCK = 128
"""Pixels processed at once, so that their data stays in the L1 cache."""

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


# --- Lanes: L float32 side by side in one SIMD register -----------------------------------------------------------
#
# LLVM does not vectorize over a few channels by itself. ``like`` is a tuple of L numbers, which passes L as its length.


# numba has no annotations for these.
_intrinsic: Any = numba.extending.intrinsic
_cgutils: Any = numba.core.cgutils


class Lanes(types.Type):
    """numba's type of L float32 in one register."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"Lanes({width})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, _vector_type(lanes))  # type: ignore[no-untyped-call]


def _element(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """The address of an element of a flat array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _vector_type(lanes: Lanes) -> ir.VectorType:
    return ir.VectorType(ir.FloatType(), lanes.width)


@_intrinsic
def zeros(typing_context: Any, like: Any) -> Any:
    """L zeros."""
    lanes = Lanes(len(like))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(_vector_type(lanes), [0.0] * lanes.width)

    return lanes(like), generate


@_intrinsic
def load(typing_context: Any, like: Any, array: Any, start: Any) -> Any:
    """``array[start : start + L]``."""
    lanes = Lanes(len(like))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _element(context, builder, array, arguments[1], arguments[2])
        return builder.load(builder.bitcast(address, _vector_type(lanes).as_pointer()), align=4)

    return lanes(like, array, types.intp), generate


@_intrinsic
def store(typing_context: Any, array: Any, start: Any, lanes: Any) -> Any:
    """``array[start : start + L] = lanes``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _element(context, builder, array, arguments[0], arguments[1])
        builder.store(arguments[2], builder.bitcast(address, _vector_type(lanes).as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@_intrinsic
def load_strided(typing_context: Any, like: Any, array: Any, start: Any, stride: Any) -> Any:
    """``array[start :: stride][:L]``."""
    lanes = Lanes(len(like))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, values, index, step = arguments
        loaded = ir.Constant(_vector_type(lanes), ir.Undefined)
        for lane in range(lanes.width):
            value = builder.load(_element(context, builder, array, values, index))
            loaded = builder.insert_element(loaded, value, ir.IntType(32)(lane))
            index = builder.add(index, step)
        return loaded

    return lanes(like, array, types.intp, types.intp), generate


@_intrinsic
def store_strided(typing_context: Any, array: Any, start: Any, stride: Any, lanes: Any) -> Any:
    """``array[start :: stride][:L] = lanes``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, index, step, stored = arguments
        for lane in range(lanes.width):
            value = builder.extract_element(stored, ir.IntType(32)(lane))
            builder.store(value, _element(context, builder, array, values, index))
            index = builder.add(index, step)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, lanes), generate


@_intrinsic
def add_scaled(typing_context: Any, lanes: Any, factor: Any, other: Any) -> Any:
    """``lanes + factor * other``, fused if the CPU supports it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = _vector_type(lanes)
        first, scale, second = arguments
        spread = ir.Constant(vector, ir.Undefined)
        for lane in range(lanes.width):
            spread = builder.insert_element(spread, scale, ir.IntType(32)(lane))
        kind = ir.FunctionType(vector, [vector] * 3)
        fmuladd = _cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{lanes.width}f32")
        return builder.call(fmuladd, [second, spread, first])

    return lanes(lanes, types.float32, lanes), generate


# --- Filtering ----------------------------------------------------------------------------------------------------


@compiled_as_written
def _blur(like: Any, values: Float32, chains: Int32) -> None:
    """Add half of both neighbors to each vertex, axis by axis and in place; values are (M + 1, L), flat."""
    width, zero = len(like), zeros(like)
    before, here, vertex = zero, zero, np.intp(0)
    for position in range(1, len(chains)):
        next_vertex = np.intp(chains[position]) * width
        after = load(like, values, next_vertex)
        store(values, vertex, add_scaled(here, _HALF, add_scaled(before, _ONE, after)))
        store(values, 0, zero)
        before, here, vertex = here, after, next_vertex


@compiled_as_written
def _splat_and_blur(vertices: Int32, weights: Float32, chains: Int32, num_vertices: int, values: Float32) -> Float32:
    """Splat (N,) values to the vertices and blur them."""
    at_vertices = np.zeros(num_vertices, np.float32)
    for pixel in range(len(values)):
        for r in range(vertices.shape[1]):
            at_vertices[np.uint64(vertices[pixel, r])] += weights[pixel, r] * values[pixel]
    _blur((_ZERO,), at_vertices, chains)
    return at_vertices


@compiled_as_written
def _slice(vertices: Int32, weights: Float32, at_vertices: Float32, pixel: int) -> Scalar:
    """Interpolate the value of a pixel from the vertices around it."""
    total = _ZERO
    for r in range(vertices.shape[1]):
        total += weights[pixel, r] * at_vertices[np.uint64(vertices[pixel, r])]
    return total


@compiled_as_written
def normalize(vertices: Int32, weights: Float32, chains: Int32, num_vertices: int) -> None:
    """Divide the weights of each pixel by the square root of the filtered ones, so that K becomes n K n."""
    ones = np.ones(len(vertices), np.float32)
    at_vertices = _splat_and_blur(vertices, weights, chains, num_vertices, ones)
    for pixel in range(len(vertices)):
        factor = np.float32(1 / math.sqrt(_slice(vertices, weights, at_vertices, pixel) + 1e-20))
        for r in range(vertices.shape[1]):
            weights[pixel, r] *= factor


# --- Mean field ---------------------------------------------------------------------------------------------------


@compiled_as_written
def _slice_block(
    like: Any,
    messages: Float32,
    start: int,
    count: int,
    fine: tuple[Int32, Float32, Float32],
    coarse: tuple[Int32, Float32, Float32],
    factors: tuple[Scalar, Scalar],
) -> None:
    """Slice a group of channels for a block of pixels from both lattices: the messages, (L, pixels)."""
    width, zero = len(like), zeros(like)
    fine_vertices, fine_weights, fine_values = fine
    coarse_vertices, coarse_weights, coarse_values = coarse
    for p in range(count):
        total, smooth = zero, zero
        for r in range(6):
            vertex = np.intp(fine_vertices[np.uint64(start + p), np.uint64(r)])
            weight = fine_weights[np.uint64(start + p), np.uint64(r)]
            total = add_scaled(total, weight, load(like, fine_values, vertex * width))
        for r in range(3):
            vertex = np.intp(coarse_vertices[np.uint64(start + p), np.uint64(r)])
            weight = coarse_weights[np.uint64(start + p), np.uint64(r)]
            smooth = add_scaled(smooth, weight, load(like, coarse_values, vertex * width))
        both = add_scaled(add_scaled(zero, factors[0], total), factors[1], smooth)
        store_strided(messages, p, _BLOCK, both)


@compiled_as_written
def _splat_block(
    like: Any,
    channels: Float32,
    start: int,
    count: int,
    fine: tuple[Int32, Float32, Float32],
    coarse: tuple[Int32, Float32, Float32],
) -> None:
    """Splat a group of channels, (L, pixels), of a block of pixels to both lattices."""
    width = len(like)
    fine_vertices, fine_weights, fine_values = fine
    coarse_vertices, coarse_weights, coarse_values = coarse
    for p in range(count):
        lanes = load_strided(like, channels, p, _BLOCK)
        for r in range(6):
            vertex = np.intp(fine_vertices[np.uint64(start + p), np.uint64(r)]) * width
            weight = fine_weights[np.uint64(start + p), np.uint64(r)]
            store(fine_values, vertex, add_scaled(load(like, fine_values, vertex), weight, lanes))
        for r in range(3):
            vertex = np.intp(coarse_vertices[np.uint64(start + p), np.uint64(r)]) * width
            weight = coarse_weights[np.uint64(start + p), np.uint64(r)]
            store(coarse_values, vertex, add_scaled(load(like, coarse_values, vertex), weight, lanes))


@compiled_as_written
def _exp(x: Scalar) -> Scalar:
    """e^x for float32 x <= 0, to 1 unit in the last place; unlike libm's, LLVM vectorizes it (Cephes, expf)."""
    x = max(np.float32(x), np.float32(-87))
    power = np.rint(x * np.float32(1.44269504088896341))
    x = x - power * np.float32(0.693359375) + power * np.float32(2.12194440e-4)
    series = np.float32(1.9875691500e-4)
    series = series * x + np.float32(1.3981999507e-3)
    series = series * x + np.float32(8.3334519073e-3)
    series = series * x + np.float32(4.1665795894e-2)
    series = series * x + np.float32(1.6666665459e-1)
    series = series * x + np.float32(5.0000001201e-1)
    two_to_power = np.int32((np.int32(power) + np.int32(127)) << np.int32(23)).view(np.float32)
    return (series * x * x + x + _ONE) * two_to_power


@compiled_as_written
def _softmax_block(scores: Float32, num_labels: int, largest: Float32, total: Float32, rest: Float32) -> None:
    """Turn scores relative to label 0, (K - 1, pixels), into probabilities in place; ``rest`` gets those of label 0."""
    largest[:] = _ZERO
    for c in range(num_labels - 1):
        for p in range(_BLOCK):
            largest[p] = max(largest[p], scores[c * _BLOCK + p])
    for p in range(_BLOCK):
        rest[p] = total[p] = _exp(-largest[p])
    for c in range(num_labels - 1):
        row = scores[c * _BLOCK : (c + 1) * _BLOCK]
        for p in range(_BLOCK):
            row[p] = _exp(row[p] - largest[p])
            total[p] += row[p]
    for p in range(_BLOCK):
        total[p] = _ONE / total[p]
        rest[p] *= total[p]
    for c in range(num_labels - 1):
        row = scores[c * _BLOCK : (c + 1) * _BLOCK]
        for p in range(_BLOCK):
            row[p] *= total[p]


@compiled_as_written
def mean_field(
    like: Any,
    logits: Float32,
    num_iterations: int,
    bilateral: tuple[Int32, Float32, Int32, int],
    spatial: tuple[Int32, Float32, Int32, int],
    factors: tuple[Scalar, Scalar],
) -> Float32:
    """Mean-field inference with Potts compatibility (Krähenbühl and Koltun, algorithm 1).

    Only differences to the probability of label 0 are filtered, because a softmax is invariant to a common offset.
    Slice, softmax and splat of a block of pixels are one pass.

    Args:
        like: a tuple of L float32.
        logits: (S, K - 1, N) float32, log probabilities minus that of label 0.
        num_iterations: 1 or more.
        bilateral: vertices (N, 6), normalized weights (N, 6), chains and M + 1 of the bilateral lattice.
        spatial: the same for the spatial lattice, with 3 instead of 6.
        factors: float32, the weights of the two kernels.

    Returns:
        (S, K, N) float32.
    """
    num_unaries, num_others, num_pixels = logits.shape
    num_groups, lane_pixels = -(-num_unaries * num_others // len(like)), len(like) * _BLOCK
    channels = np.zeros(num_groups * lane_pixels, np.float32)
    largest, total = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    rest = np.empty(_BLOCK, np.float32)
    refined = np.empty((num_unaries, num_others + 1, num_pixels), np.float32)
    fine_shape, coarse_shape = (num_groups, bilateral[3] * len(like)), (num_groups, spatial[3] * len(like))
    old_fine, new_fine = np.zeros(fine_shape, np.float32), np.zeros(fine_shape, np.float32)
    old_coarse, new_coarse = np.zeros(coarse_shape, np.float32), np.zeros(coarse_shape, np.float32)
    for iteration in range(num_iterations + 1):
        for start in range(0, num_pixels, _BLOCK):
            count = min(_BLOCK, num_pixels - start)
            if iteration == 0:
                channels[:] = _ZERO
            else:
                for group in range(num_groups):
                    _slice_block(
                        like,
                        channels[group * lane_pixels : (group + 1) * lane_pixels],
                        start,
                        count,
                        (bilateral[0], bilateral[1], old_fine[group]),
                        (spatial[0], spatial[1], old_coarse[group]),
                        factors,
                    )
            for s in range(num_unaries):
                scores = channels[s * num_others * _BLOCK : (s + 1) * num_others * _BLOCK]
                for c in range(num_others):
                    row, logit = scores[c * _BLOCK : c * _BLOCK + count], logits[s, c, start : start + count]
                    for p in range(count):
                        row[p] += logit[p]
                _softmax_block(scores, num_others + 1, largest, total, rest)
                if iteration == num_iterations:
                    refined[s, 0, start : start + count] = rest[:count]
                    for c in range(num_others):
                        refined[s, c + 1, start : start + count] = scores[c * _BLOCK : c * _BLOCK + count]
                else:
                    for c in range(num_others):
                        row = scores[c * _BLOCK : (c + 1) * _BLOCK]
                        for p in range(_BLOCK):
                            row[p] -= rest[p]
            if iteration < num_iterations:
                for group in range(num_groups):
                    _splat_block(
                        like,
                        channels[group * lane_pixels : (group + 1) * lane_pixels],
                        start,
                        count,
                        (bilateral[0], bilateral[1], new_fine[group]),
                        (spatial[0], spatial[1], new_coarse[group]),
                    )
        if iteration < num_iterations:
            for group in range(num_groups):
                _blur(like, new_fine[group], bilateral[2])
                _blur(like, new_coarse[group], spatial[2])
            old_fine, new_fine = new_fine, old_fine
            old_coarse, new_coarse = new_coarse, old_coarse
            new_fine[:] = _ZERO
            new_coarse[:] = _ZERO
    return refined
