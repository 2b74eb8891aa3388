"""The compiled loops of the permutohedral lattice and of mean field inference on it (numba, one thread, no GIL).

Sources: Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (2010); Krähenbühl and
Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (2011); pydensecrf, whose rounding
this follows operation by operation.

Letters: N = H * W pixels, D features of a pixel, M vertices of the lattice, K labels, S unaries, C = S * (K - 1)
channels, stored in G groups of L lanes. A vertex belongs to one of D + 1 remainder classes; vertex 0 stands for "no
vertex" and is always zero.

All compiled code is in this one file because numba's cache on disk notices changes of a function's own file only.
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
Int64 = NDArray[np.int64]

_BLOCK = 128
"""Pixels handled at once: what they need stays in the first-level cache."""

_FIRST_CAPACITY = 1 << 12
"""Slots of a class's hash table at the start; a power of two, doubled as it fills."""

_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio (Fibonacci hashing)."""

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


# --- Lanes: L float32 side by side in one SIMD register -----------------------------------------------------------
#
# LLVM does not vectorise over a handful of channels by itself. ``like`` is a tuple of L numbers, whose length is L.


# numba's own annotations do not cover these.
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
    """``lanes + factor * other``, fused where the processor can."""

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


# --- Building the lattice -----------------------------------------------------------------------------------------


@compiled_as_written
def _read_features(
    features: Float32, colours: Any, start: int, count: int, sigma_px: Scalar, sigma_rgb: Scalar
) -> None:
    """Write a block of pixels as (D, pixels): x, y and the colours, each over its sigma."""
    width, num_colours, flat = colours.shape[1], colours.shape[2], colours.reshape(-1)
    y, x = start // width, start % width
    for p in range(count):
        features[0, p] = np.float32(x) / sigma_px
        features[1, p] = np.float32(y) / sigma_px
        x += 1
        if x == width:
            x, y = 0, y + 1
    for c in range(num_colours):
        row, first = features[2 + c], start * num_colours + c
        for p in range(count):
            row[p] = np.float32(flat[np.uint64(first + p * num_colours)]) / sigma_rgb


@compiled_as_written
def _elevate(elevated: Float32, features: Float32, scales: Float32, total: Float32) -> None:
    """Move the features onto the plane whose coordinates sum to 0 (Adams et al., p. 5): (D, pixels) to (D + 1, ...)."""
    total[:] = _ZERO
    for j in range(len(scales), 0, -1):
        scale, index, feature, row = scales[j - 1], np.float32(j), features[j - 1], elevated[j]
        for p in range(_BLOCK):
            scaled = feature[p] * scale
            row[p] = total[p] - index * scaled
            total[p] += scaled
    elevated[0] = total


@compiled_as_written
def _find_simplices(elevated: Float32, cells: Float32, ranks: Float32, total: Float32) -> None:
    """Find the simplex around each pixel of a block.

    Afterwards ``cells * (D + 1)`` is the simplex's vertex of remainder 0, ``elevated`` the position from there divided
    by D + 1, and ``ranks`` the place of each coordinate when they are sorted downwards. All are (D + 1, pixels).
    """
    size = np.float32(len(elevated))
    inverse = _ONE / size
    total[:] = _ZERO
    for i in range(len(elevated)):
        row, cell, rank = elevated[i], cells[i], ranks[i]
        for p in range(_BLOCK):
            nearest = np.rint(inverse * row[p])
            cell[p] = nearest
            total[p] += nearest
            rank[p] = _ZERO
    for i in range(len(elevated) - 1):
        for j in range(i + 1, len(elevated)):
            first, first_cell, first_rank = elevated[i], cells[i], ranks[i]
            second, second_cell, second_rank = elevated[j], cells[j], ranks[j]
            for p in range(_BLOCK):
                less = first[p] - first_cell[p] * size < second[p] - second_cell[p] * size
                first_rank[p] += _ONE if less else _ZERO
                second_rank[p] += _ZERO if less else _ONE
    # Rounding may leave the plane; the sum of the cells tells by how many steps.
    for i in range(len(elevated)):
        row, cell, rank = elevated[i], cells[i], ranks[i]
        for p in range(_BLOCK):
            moved = rank[p] + total[p]
            step = _ONE if moved < _ZERO else (-_ONE if moved >= size else _ZERO)
            rank[p] = moved + step * size
            cell[p] += step
            row[p] = (row[p] - cell[p] * size) * inverse


@compiled_as_written
def _sort_coordinates(
    positions: Float32,
    strides_down: Int64,
    base_keys: Int64,
    elevated: Float32,
    cells: Float32,
    ranks: Float32,
    strides: Int64,
) -> None:
    """Put the coordinates' positions and strides in the order of their ranks; the keys are those of remainder 0."""
    base_keys[:] = 0
    for i in range(len(strides)):
        row, cell, rank, stride = elevated[i], cells[i], ranks[i], strides[i]
        for p in range(_BLOCK):
            base_keys[p] += np.int64(cell[p]) * stride
        for p in range(_BLOCK):
            place = np.uint64(np.int32(rank[p]))
            positions[place, np.uint64(p)] = row[p]
            strides_down[place, np.uint64(p)] = stride


@compiled_as_written
def _slot(table: Int32, keys: Int64, key: int) -> int:
    """Where in a class's hash table of vertices the key is or would go."""
    mask = np.uint64(len(table) - 1)
    slot = ((np.uint64(key) * _HASH_FACTOR) >> np.uint64(32)) & mask
    while table[slot] != 0 and keys[np.uint64(table[slot])] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot  # type: ignore[return-value]


@compiled_as_written
def _grown(tables: Int32, keys: Int64) -> Int32:
    """The same tables with twice the slots."""
    num_classes, capacity = tables.shape
    grown = np.zeros((num_classes, 2 * capacity), np.int32)
    for r in range(num_classes):
        for vertex in tables[r]:
            if vertex != 0:
                grown[r, _slot(grown[r], keys, keys[vertex])] = vertex
    return grown


@compiled_as_written
def find_vertices(
    colours: Any, sigma_px: Scalar, sigma_rgb: Scalar, scales: Float32, strides: Int64
) -> tuple[Int32, Float32, Int64, Int64, Int32]:
    """Find the D + 1 vertices around each pixel and the pixel's barycentric coordinates among them.

    A vertex of remainder r has coordinates ``(D + 1) * q + r`` with whole q, so (r, q) names it, and the key
    ``sum(q * strides)`` names q. From one vertex of a simplex to the next, one coordinate of q falls by 1.

    Args:
        colours: (H, W, D - 2) uint8.
        sigma_px: float32, by which x and y are divided.
        sigma_rgb: float32, by which the colours are divided.
        scales: (D,) float32, the diagonal of the elevation.
        strides: (D + 1,), with which q becomes one number; the last is 0 because it follows from the others.

    Returns:
        vertices (N, D + 1), weights (N, D + 1), the keys and the classes (M + 1,) of the vertices, and a hash table of
        the vertices for each class.
    """
    num_pixels, size = colours.shape[0] * colours.shape[1], len(strides)
    vertices = np.empty((num_pixels, size), np.int32)
    weights = np.empty((num_pixels, size), np.float32)
    keys = np.empty(num_pixels * size + 1, np.int64)
    classes = np.empty(num_pixels * size + 1, np.int64)
    tables = np.zeros((size, _FIRST_CAPACITY), np.int32)
    counts = np.zeros(size, np.int64)
    num_vertices = 1

    features, total = np.zeros((size - 1, _BLOCK), np.float32), np.empty(_BLOCK, np.float32)
    elevated, cells = np.empty((size, _BLOCK), np.float32), np.empty((size, _BLOCK), np.float32)
    ranks, positions = np.empty((size, _BLOCK), np.float32), np.empty((size, _BLOCK), np.float32)
    strides_down, block_keys = np.empty((size, _BLOCK), np.int64), np.empty(_BLOCK, np.int64)
    for start in range(0, num_pixels, _BLOCK):
        count = min(_BLOCK, num_pixels - start)
        _read_features(features, colours, start, count, sigma_px, sigma_rgb)
        _elevate(elevated, features, scales, total)
        _find_simplices(elevated, cells, ranks, total)
        _sort_coordinates(positions, strides_down, block_keys, elevated, cells, ranks, strides)
        for r in range(size):
            if r == 0:
                for p in range(count):
                    weights[start + p, 0] = positions[size - 1, p] + (_ONE - positions[0, p])
            else:
                nearer, farther, falling = positions[size - r - 1], positions[size - r], strides_down[size - r]
                for p in range(count):
                    weights[start + p, r] = nearer[p] - farther[p]
                    block_keys[p] -= falling[p]
            if 2 * (counts[r] + _BLOCK) > tables.shape[1]:
                tables = _grown(tables, keys)
            table, first_vertex = tables[r], num_vertices
            for p in range(count):
                slot = _slot(table, keys, block_keys[p])
                if table[slot] == 0:
                    table[slot] = num_vertices
                    keys[num_vertices], classes[num_vertices] = block_keys[p], r
                    num_vertices += 1
                vertices[start + p, r] = table[slot]
            counts[r] += num_vertices - first_vertex
    return vertices, weights, keys[:num_vertices].copy(), classes[:num_vertices].copy(), tables


@compiled_as_written
def find_chains(keys: Int64, classes: Int64, tables: Int32, strides: Int64) -> Int32:
    """Line the vertices up along each axis in turn.

    The step along axis j raises coordinate j by D and lowers the others by 1. Vertices without a neighbour on an axis
    are left out there, because the blur does not change them.

    Returns:
        vertices in the order of the blur, 0 before, between and after two chains.
    """
    size = len(strides)
    following, has_before = np.empty(len(keys), np.int32), np.empty(len(keys), np.bool_)
    chains = np.empty(size * (len(keys) + len(keys) // 2) + 2, np.int32)
    chains[0] = 0
    length, all_strides = 1, strides.sum()
    for axis in range(size):
        has_before[:] = False
        for vertex in range(1, len(keys)):
            r, key = classes[vertex], keys[vertex] + strides[axis]
            if r == 0:
                r, key = size, key - all_strides
            r -= 1
            after = tables[r, _slot(tables[r], keys, key)]
            following[vertex] = after
            has_before[after] = True
        for vertex in range(1, len(keys)):
            if not has_before[vertex] and following[vertex] != 0:
                after = vertex
                while after != 0:
                    chains[length] = after
                    length += 1
                    after = following[after]
                chains[length] = 0
                length += 1
    return chains[:length].copy()


# --- Filtering ----------------------------------------------------------------------------------------------------


@compiled_as_written
def _blur(like: Any, values: Float32, chains: Int32) -> None:
    """Add half of both neighbours to every vertex, one axis after the other, in place: values are (M + 1, L), flat."""
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
    """What (N,) values become at the vertices."""
    at_vertices = np.zeros(num_vertices, np.float32)
    for pixel in range(len(values)):
        for r in range(vertices.shape[1]):
            at_vertices[np.uint64(vertices[pixel, r])] += weights[pixel, r] * values[pixel]
    _blur((_ZERO,), at_vertices, chains)
    return at_vertices


@compiled_as_written
def _slice(vertices: Int32, weights: Float32, at_vertices: Float32, pixel: int) -> Scalar:
    """What a pixel reads from the vertices around it."""
    total = _ZERO
    for r in range(vertices.shape[1]):
        total += weights[pixel, r] * at_vertices[np.uint64(vertices[pixel, r])]
    return total


@compiled_as_written
def apply_filter(vertices: Int32, weights: Float32, chains: Int32, num_vertices: int, values: Float32) -> Float32:
    """Splat (N,) values onto the vertices, blur, slice: without alpha, the constant of Adams et al."""
    at_vertices = _splat_and_blur(vertices, weights, chains, num_vertices, values)
    filtered = np.empty_like(values)
    for pixel in range(len(values)):
        filtered[pixel] = _slice(vertices, weights, at_vertices, pixel)
    return filtered


@compiled_as_written
def normalise(vertices: Int32, weights: Float32, chains: Int32, num_vertices: int) -> None:
    """Divide each pixel's weights by the root of what the filter makes of all ones, so that K becomes n K n."""
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
    """Read a group of channels of a block of pixels out of both lattices: the messages, (L, pixels)."""
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
    """Add a group of channels, (L, pixels), of a block of pixels to the vertices around them in both lattices."""
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
    """e^x for float32 x <= 0, to 1 unit in the last place; LLVM vectorises it, unlike the library's (Cephes, expf)."""
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
    """Turn (K - 1, pixels) scores against label 0 into probabilities, in place; ``rest`` gets those of label 0."""
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
    """Mean field inference with Potts compatibility (Krähenbühl and Koltun, algorithm 1).

    Only the differences of the labels' probabilities to label 0's are filtered: a softmax ignores what all its labels
    share. Reading a block of pixels from the lattices, its softmax and writing it back are one pass.

    Args:
        like: a tuple of L float32.
        logits: (S, K - 1, N) float32, logarithms of the probabilities less label 0's.
        num_iterations: 1 or more.
        bilateral: vertices (N, 6), normalised weights (N, 6), chains and M + 1 of the lattice.
        spatial: the same with 3 in place of 6.
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
