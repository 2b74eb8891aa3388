"""Compiled loops that build the permutohedral lattice (numba, one thread, no GIL).

Source: Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (2010), rounded
operation by operation as in pydensecrf.

Letters: N = H * W pixels, D features of a pixel, M vertices of the lattice. A vertex belongs to one of D + 1 remainder
classes; vertex 0 stands for "no vertex".

Compiled functions here call none from other files, because numba's disk cache only tracks changes to a function's own
file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.ops.compiled import compiled_as_written

Scalar = np.floating[Any]
Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_BLOCK = 128
"""Pixels processed at once, so that their data stays in the L1 cache."""

_FIRST_CAPACITY = 1 << 12
"""Initial slots of the hash table of a class; a power of two, doubled as it fills."""

_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio (Fibonacci hashing)."""

_ZERO, _ONE = np.float32(0), np.float32(1)


@compiled_as_written
def _read_features(features: Float32, colors: Any, start: int, count: int, sigma_px: Scalar, sigma_rgb: Scalar) -> None:
    """Write the features of a block of pixels, (D, pixels): x, y and the colors, each divided by its sigma."""
    width, num_colors, flat = colors.shape[1], colors.shape[2], colors.reshape(-1)
    y, x = start // width, start % width
    for p in range(count):
        features[0, p] = np.float32(x) / sigma_px
        features[1, p] = np.float32(y) / sigma_px
        x += 1
        if x == width:
            x, y = 0, y + 1
    for c in range(num_colors):
        row, first = features[2 + c], start * num_colors + c
        for p in range(count):
            row[p] = np.float32(flat[np.uint64(first + p * num_colors)]) / sigma_rgb


@compiled_as_written
def _elevate(elevated: Float32, features: Float32, scales: Float32, total: Float32) -> None:
    """Embed features (D, pixels) in the plane of D + 1 coordinates that sum to 0 (Adams et al., p. 5)."""
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

    Afterward ``cells * (D + 1)`` is the vertex of remainder 0 of the simplex, ``elevated`` the position relative to it,
    divided by D + 1, and ``ranks`` the rank of each coordinate in descending order. All are (D + 1, pixels).
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
    # Rounding may leave the plane, by as many steps as the sum of the cells.
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
    """Sort positions and strides of the coordinates by rank, and compute the keys of the vertices of remainder 0."""
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
    """Find the slot of a key in the hash table of a class, or the slot to insert it."""
    mask = np.uint64(len(table) - 1)
    slot = ((np.uint64(key) * _HASH_FACTOR) >> np.uint64(32)) & mask
    while table[slot] != 0 and keys[np.uint64(table[slot])] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot  # type: ignore[return-value]


@compiled_as_written
def _grown(tables: Int32, keys: Int64) -> Int32:
    """Copy the tables to tables with twice the slots."""
    num_classes, capacity = tables.shape
    grown = np.zeros((num_classes, 2 * capacity), np.int32)
    for r in range(num_classes):
        for vertex in tables[r]:
            if vertex != 0:
                grown[r, _slot(grown[r], keys, keys[vertex])] = vertex
    return grown


@compiled_as_written
def find_vertices(
    colors: Any, sigma_px: Scalar, sigma_rgb: Scalar, scales: Float32, strides: Int64
) -> tuple[Int32, Float32, Int64, Int64, Int32]:
    """Find the D + 1 vertices around each pixel and the pixel's barycentric coordinates among them.

    A vertex of remainder r has coordinates ``(D + 1) * q + r`` with integer q, so (r, q) identifies it, and the key
    ``sum(q * strides)`` identifies q. From one vertex of a simplex to the next, one coordinate of q decreases by 1.

    Args:
        colors: (H, W, D - 2) uint8.
        sigma_px: float32 divisor of x and y.
        sigma_rgb: float32 divisor of the colors.
        scales: (D,) float32, the diagonal of the elevation.
        strides: (D + 1,) weights that make a key from q; the last is 0 because that coordinate follows from the others.

    Returns:
        vertices (N, D + 1), weights (N, D + 1), keys and classes (M + 1,) of the vertices, and a hash table of vertices
        per class.
    """
    num_pixels, size = colors.shape[0] * colors.shape[1], len(strides)
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
        _read_features(features, colors, start, count, sigma_px, sigma_rgb)
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
    """Order the vertices in chains of neighbors along each axis.

    The step along axis j increases coordinate j by D and decreases the others by 1. Vertices without a neighbor on an
    axis are omitted from it, because the blur does not change them.

    Returns:
        The vertices in the order of the blur, with 0 before, between and after chains.
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
