"""Matrices of additive kernels, in blocks.

Three exact forms of the same number, cheapest first:

- ζ = 1: K(A, B) = ⟨Σ_i p_i, Σ_j p_j⟩. Only sums over each structure are needed.
- ζ = 2: K(A, B) = ⟨Σ_i p_i p_iᵀ, Σ_j p_j p_jᵀ⟩, in blocks of pairs of features; the
  same with p_i q_iᵀ for the product of two linear kernels.
- any: the environment kernel in blocks, summed over the atoms of each structure.

Indices of arrays: A, B structures, i, j environments, p, q features.
"""

from itertools import pairwise

import numpy as np
from tqdm import tqdm

from lode.features import scalar_products, segment_matrix
from lode.parallel import single_threaded_blas

# Memory of the second moments in one block of feature pairs.
_MOMENT_BYTES = 2**28
# Rows and columns of a block of the environment kernel (32 MB in float64).
_BLOCK = 2048
# Cost of an entry of the environment kernel beyond its scalar product (power, sum
# over segments; bound by memory), in multiply-adds of a matrix product.
_ENTRY_COST = 60
# Cost of an entry of the second moments of a structure beyond its products, as above.
_MOMENT_COST = 100


def joined_sums(sums, n_structures):
    """Sums over centres of all species, from those of each.

    Parameters
    ----------
    sums : list of (int, ndarray of int, Part)
        Centre species, structures, and features summed over each structure.
    n_structures : int

    Returns
    -------
    list of (int, ndarray of int, Part)
        One for each set of columns.
    """
    found = {}
    for _, structures, part in sums:
        room = np.zeros((n_structures, part.values.shape[1])), []
        total, members = found.setdefault(part.columns.tobytes(), (*room, part))[:2]
        total[structures] += part.values
        members.append(structures)
    joined = []
    for total, members, part in found.values():
        structures = np.unique(np.concatenate(members))
        joined.append((0, structures, part._replace(values=total[structures])))
    return joined


def gram_of_sums(sums_a, sums_b, shape):
    """Kernel matrix of a linear kernel.

    Parameters
    ----------
    sums_a, sums_b : list of (int, ndarray of int, Part)
        Centre species, structures, and features summed over each structure. Without
        the second that of the first with itself.
    shape : (int, int)
        Numbers of structures.

    Returns
    -------
    ndarray (n_a, n_b)
    """
    values = np.zeros(shape)
    every = slice(None)
    for center_a, structures_a, part_a in sums_a:
        for center_b, structures_b, part_b in sums_a if sums_b is None else sums_b:
            if center_a == center_b:
                product = scalar_products(part_a, every, part_b, every)
                values[np.ix_(structures_a, structures_b)] += product
    return values


def diagonal_of_sums(sums, n_structures):
    """Kernel of each structure with itself, of a linear kernel.

    Parameters
    ----------
    sums : list of (int, ndarray of int, Part)
        As for :func:`gram_of_sums`.
    n_structures : int

    Returns
    -------
    ndarray (n_structures,)
    """
    values = np.zeros(n_structures)
    for _, structures, part in sums:
        values[structures] += np.einsum("Ap,Ap->A", part.values, part.values)
    return values


def power(values, degree):
    """Integer power, in place where possible: ``**`` of arrays is ten times slower."""
    result = None
    while degree:
        if degree & 1:
            result = values.copy() if result is None else np.multiply(result, values)
        degree >>= 1
        if degree:
            values = values * values
    return result


def environment_gram(kernel, a, b, average, progress=False):
    """Kernel matrix of an environment kernel, by the cheaper exact form.

    Parameters
    ----------
    kernel : Kernel
    a, b : StructureFeatures
        If there is no ``b``, the kernel of ``a`` with itself.
    average : bool
        Whether it is divided by the numbers of atoms of both.
    progress : bool

    Returns
    -------
    ndarray (n_a, n_b)
    """
    weight, factors = kernel._linear_factors()
    use_moments = len(factors) == 2 and _moments_are_cheaper(factors, a, b or a)
    if use_moments:
        values = weight * moment_gram(factors, a, b, progress=progress)
    else:
        values = direct_gram(kernel, a, b, progress=progress)
    if average:
        values /= a.n_atoms[:, None] * (b or a).n_atoms
    return values


def _part(block, factor):
    return block.parts[factor._environment_key]


def _moments_are_cheaper(factors, a, b):
    """Compare the multiply-adds of the two forms of a kernel of degree 2."""
    keys = [factor._environment_key for factor in factors]
    if not (a.blocks and b.blocks):
        return False
    # One set of columns in all blocks, or the moments would be made several times.
    for key in keys:
        columns = [block.parts[key].columns for x in (a, b) for block in x.blocks]
        if not all(np.array_equal(c, columns[0]) for c in columns):
            return False
    n_p, n_q = (a.blocks[0].parts[key].values.shape[1] for key in keys)
    symmetric = keys[0] == keys[1]
    n_pairs = n_p * n_q / 2 if symmetric else n_p * n_q
    n_products = (n_p if symmetric else n_p + n_q) + _ENTRY_COST
    n_environments = sum(len(block) for x in (a, b) for block in x.blocks)
    groups = _groups(factors, a, b)
    n_entries = sum(
        sum(map(len, blocks_a)) * sum(map(len, blocks_b))
        for blocks_a, blocks_b in groups
    )
    n_moments = a.n_structures + b.n_structures
    n_kernels = len(groups) * a.n_structures * b.n_structures
    moments = n_pairs * (n_environments + n_kernels + _MOMENT_COST * n_moments)
    return moments < n_entries * n_products


def _groups(factors, a, b):
    """Blocks that are summed together: of ``a`` and of ``b``."""
    if not any(factor.species_delta for factor in factors):
        return [(a.blocks, b.blocks)]
    return [
        tuple([block for block in x.blocks if block.center == z] for x in (a, b))
        for z in a.centers
        if z in b.centers
    ]


def moment_gram(factors, a, b, memory=None, progress=False):
    """Σ_ij (p_i · p_j)(q_i · q_j) = ⟨Σ_i p_i q_iᵀ, Σ_j p_j q_jᵀ⟩, in feature blocks.

    All blocks must have the same columns.
    """
    other = a if b is None else b
    widths = [_part(a.blocks[0], factor).values.shape[1] for factor in factors]
    symmetric = factors[0]._environment_key == factors[1]._environment_key
    n_rows = a.n_structures + (0 if b is None else b.n_structures)
    memory = _MOMENT_BYTES if memory is None else memory
    width = max(1, int(np.sqrt(memory / (8 * n_rows))))
    blocks_p, blocks_q = (_even_blocks(n, width) for n in widths)
    values = np.zeros((a.n_structures, other.n_structures))
    # Written again for each block: fresh memory costs as much as the product.
    size = max((b.stop - b.start for b in blocks_p), default=0)
    size *= max((b.stop - b.start for b in blocks_q), default=0)
    buffer_a = np.empty(a.n_structures * size)
    buffer_b = None if b is None else np.empty(b.n_structures * size)
    tasks = [
        (*group, block_p, block_q)
        for group in _groups(factors, a, other)
        for i, block_p in enumerate(blocks_p)
        # p_i p_iᵀ is symmetric: blocks below the diagonal count in those above.
        for block_q in blocks_q[i if symmetric else 0 :]
    ]
    for of_a, of_b, block_p, block_q in _watched(tasks, progress):
        chosen = factors, block_p, block_q
        m_A = _moments(of_a, a.n_structures, *chosen, buffer_a)
        m_B = m_A
        if b is not None:
            m_B = _moments(of_b, b.n_structures, *chosen, buffer_b)
        product = m_A @ m_B.T
        values += 2.0 * product if symmetric and block_p != block_q else product
    return values


def _watched(tasks, progress):
    return tqdm(tasks, desc="kernel", unit="block", disable=not progress)


def _even_blocks(n, width):
    """Slices of nearly equal length, at most ``width``."""
    edges = np.linspace(0, n, -(-n // width) + 1).round().astype(int)
    return [slice(int(i), int(j)) for i, j in pairwise(edges)]


def _moments(blocks, n_structures, factors, columns_p, columns_q, buffer):
    """Σ_{i∈A} p_i q_iᵀ of each structure, flattened: (n_structures, n_p n_q)."""
    n_p, n_q = (c.stop - c.start for c in (columns_p, columns_q))
    m_Apq = buffer[: n_structures * n_p * n_q].reshape(n_structures, n_p, n_q)
    # Products this small lose more than they gain from a second thread.
    with single_threaded_blas():
        missing = np.ones(n_structures, dtype=bool)
        for block in blocks:
            # Contiguous copies: ten times faster than products of strided rows.
            p_ip, q_iq = (
                np.ascontiguousarray(_part(block, f).values[:, c], np.float64)
                for f, c in zip(factors, (columns_p, columns_q), strict=True)
            )
            bounds = pairwise(block.bounds.tolist())
            for place, (i, j) in zip(block.structures.tolist(), bounds, strict=True):
                if missing[place]:
                    np.matmul(p_ip[i:j].T, q_iq[i:j], out=m_Apq[place])
                else:
                    m_Apq[place] += p_ip[i:j].T @ q_iq[i:j]
            missing[block.structures] = False
        m_Apq[missing] = 0.0
    return m_Apq.reshape(n_structures, -1)


def direct_gram(kernel, a, b, block=None, progress=False):
    """Environment kernel in blocks, summed over the atoms of each structure."""
    block = _BLOCK if block is None else block
    values = np.zeros((a.n_structures, (b or a).n_structures))
    pieces_a = list(enumerate(_pieces(a, block)))
    pieces_b = [piece for _, piece in pieces_a] if b is None else _pieces(b, block)
    for i, (block_a, rows, segments_a, in_a) in _watched(pieces_a, progress):
        for j, (block_b, columns, segments_b, in_b) in enumerate(pieces_b):
            if b is None and j < i:
                continue
            k_ij = kernel._block(block_a, rows, block_b, columns, {})
            if k_ij is None:
                continue
            sums_BA = segments_b @ np.ascontiguousarray((segments_a @ k_ij).T)
            values[np.ix_(in_a, in_b)] += sums_BA.T
            if b is None and j > i:
                values[np.ix_(in_b, in_a)] += sums_BA
    return values


def add_environment_gradients(kernel, a, b, weight_AB, gradients):
    """Add the gradient of Σ weight_AB K(A, B) to those of the environments of A.

    Parameters
    ----------
    kernel : Kernel
    a, b : StructureFeatures
    weight_AB : ndarray (n_a, n_b)
    gradients : list of dict of str to ndarray
        For each block of ``a``, by the keys of its parts; added to.
    """
    for block_a, gradient in zip(a.blocks, gradients, strict=True):
        owner_i = np.repeat(block_a.structures, block_a.counts)
        for block_b in b.blocks:
            owner_j = np.repeat(block_b.structures, block_b.counts)
            for i in range(0, len(owner_i), _BLOCK):
                rows = slice(i, i + _BLOCK)
                for j in range(0, len(owner_j), _BLOCK):
                    columns = slice(j, j + _BLOCK)
                    weight_ij = weight_AB[owner_i[rows, None], owner_j[columns]]
                    pair = block_a, rows, block_b, columns
                    kernel._add_block_gradient(weight_ij, *pair, {}, gradient)


def _pieces(features, size):
    """Ranges of environments, the sums over their structures, and these."""
    pieces = []
    for block in features.blocks:
        place = np.repeat(np.arange(len(block.structures)), block.counts)
        for start in range(0, len(place), size):
            inside = place[start : start + size]
            first, last = inside[0], inside[-1] + 1
            rows = slice(start, start + len(inside))
            segments = segment_matrix(inside - first, last - first)
            pieces.append((block, rows, segments, block.structures[first:last]))
    return pieces


def environment_diagonal(kernel, features, average):
    """Σ_{i,j∈A} k(i, j) of each structure.

    Parameters
    ----------
    kernel : Kernel
    features : StructureFeatures
    average : bool
        Whether it is divided by the square of the number of atoms.

    Returns
    -------
    ndarray (n_structures,)
    """
    inside = [[] for _ in range(features.n_structures)]
    for block in features.blocks:
        bounds = pairwise(block.bounds.tolist())
        for place, (start, stop) in zip(block.structures, bounds, strict=True):
            inside[place] += [
                (block, slice(i, min(i + _BLOCK, stop)))
                for i in range(start, stop, _BLOCK)
            ]
    values = np.zeros(features.n_structures)
    # Products this small lose more than they gain from a second thread.
    with single_threaded_blas():
        for frame, ranges in enumerate(inside):
            for block_a, rows in ranges:
                for block_b, columns in ranges:
                    k_ij = kernel._block(block_a, rows, block_b, columns, {})
                    if k_ij is not None:
                        values[frame] += k_ij.sum()
    return values / features.n_atoms**2 if average else values
