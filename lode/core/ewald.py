"""Compiled sums over point charges: real space, reciprocal space, finite.

Lengths in Å, charges in e, Coulomb constant 1. Index suffixes: ``j`` ion, ``c``
column of wave vectors sharing (h, k), ``l`` third index of a wave vector, ``s``
segment of the erfc table, ``p`` power within a segment.
"""

import math

import numpy as np

from lode.core.compilation import CONTRACT, compiled
from lode.core.lattice import (
    fractional,
    half_sphere,
    inverted,
    lengths_of,
    reduced_cell,
)
from lode.core.neighbors import within

# Ions handled together, so that their phases stay in the first-level cache.
BLOCK = 128
# Ions sorted into a bin of the pair sum, on average.
IONS_PER_BIN = 8.0


@compiled
def lattice(cell):
    """Lengths and inverses of the reduced cell.

    For a few charges, one call of each of these to NumPy would take as long as half
    of the sum.

    Parameters
    ----------
    cell : ndarray (3, 3)
        Rows are lattice vectors, linearly independent.

    Returns
    -------
    reduced : ndarray (3, 3)
        As from :func:`reduced_cell`.
    inverse : ndarray (3, 3)
        Of the reduced cell.
    reciprocal : ndarray (3, 3)
        Rows are the reciprocal lattice vectors, with 2 pi.
    volume : float
    lengths, spacings : ndarray (3,)
        Of the vectors, and of the lattice planes.
    """
    reduced = reduced_cell(cell)
    inverse, volume = inverted(reduced)
    dual = inverse.T.copy()
    reciprocal, spacings = 2.0 * math.pi * dual, 1.0 / lengths_of(dual)
    return reduced, inverse, reciprocal, abs(volume), lengths_of(reduced), spacings


@compiled
def binned(inside, bins):
    """Ions sorted by bin.

    Parameters
    ----------
    inside : ndarray (n, 3)
        Fractional coordinates in [0, 1).
    bins : ndarray (3,) of int
        Number of bins along each vector.

    Returns
    -------
    start : ndarray (n_bins + 1,) of int
        Bin b holds the ions ``order[start[b]:start[b + 1]]``.
    order : ndarray (n,) of int
    """
    n = inside.shape[0]
    n_bins = bins[0] * bins[1] * bins[2]
    start = np.zeros(n_bins + 1, dtype=np.int64)
    home = np.empty(n, dtype=np.int64)
    for i in range(n):
        b = 0
        for x in range(3):
            # A coordinate next to one can round up to the number of bins.
            b = b * bins[x] + min(int(inside[i, x] * bins[x]), bins[x] - 1)
        home[i] = b
        start[b + 1] += 1
    for b in range(n_bins):
        start[b + 1] += start[b]
    filled = start.copy()
    order = np.empty(n, dtype=np.int64)
    for i in range(n):
        order[filled[home[i]]] = i
        filled[home[i]] += 1
    return start, order


@compiled
def half_offsets(cell, bins, reach, cutoff):
    """Half of the offsets between bins that may hold a pair, zero first.

    Parameters
    ----------
    cell : ndarray (3, 3)
    bins, reach : ndarray (3,) of int
        Number of bins along each vector, and the largest offset.
    cutoff : float

    Returns
    -------
    ndarray (n_offsets, 3) of int
    """
    offsets = np.empty(
        ((reach[0] + 1) * (2 * reach[1] + 1) * (2 * reach[2] + 1), 3), dtype=np.int64
    )
    count = 0
    centre = np.empty(3)
    for d0 in range(reach[0] + 1):
        for d1 in range(-reach[1] if d0 > 0 else 0, reach[1] + 1):
            for d2 in range(-reach[2] if d0 > 0 or d1 > 0 else 0, reach[2] + 1):
                square = 0.0
                for x in range(3):
                    centre[x] = (
                        d0 * cell[0, x] / bins[0]
                        + d1 * cell[1, x] / bins[1]
                        + d2 * cell[2, x] / bins[2]
                    )
                    square += centre[x] ** 2
                # Along the line of the centres, two points are nearer than these by
                # the extent of a bin at most, all bins being alike.
                extent = 0.0
                for a in range(3):
                    along = 0.0
                    for x in range(3):
                        along += centre[x] * cell[a, x]
                    extent += abs(along) / bins[a]
                if square - extent <= cutoff * math.sqrt(square):
                    offsets[count, 0] = d0
                    offsets[count, 1] = d1
                    offsets[count, 2] = d2
                    count += 1
    return offsets[:count]


@compiled
def bins_through_images(bins, reach):
    """Bins counted on beyond both ends of the cell.

    Parameters
    ----------
    bins, reach : ndarray (3,) of int
        Number of bins along each vector, and by how many to go on.

    Returns
    -------
    bin_at : ndarray (3, longest) of int
        Entry t is the bin at place t - reach.
    image_at : ndarray (3, longest)
        The image of the cell that holds it.
    """
    longest = 0
    for x in range(3):
        longest = max(longest, bins[x] + 2 * reach[x])
    bin_at = np.zeros((3, longest), dtype=np.int64)
    image_at = np.zeros((3, longest))
    for x in range(3):
        for t in range(bins[x] + 2 * reach[x]):
            image = (t - reach[x]) // bins[x]
            bin_at[x, t] = t - reach[x] - image * bins[x]
            image_at[x, t] = image
    return bin_at, image_at


# Contraction to fused multiplications makes the sum 1.25 times faster. Inlined, lest a
# process that compiles it calls other code than one that reads its caller from the
# cache: how sums are contracted and reassociated depends on what is around them.
@compiled(fastmath=CONTRACT, forceinline=True)
def real_space(
    inside, charges, cell, bins, spacings, alpha, cutoff, contact, table_sp, out, virial
):
    """Pair sum of erfc(alpha r)/r over all images within the cutoff.

    Ions are sorted into bins; each pair is met once, from the bin that comes
    first. Bins are counted on through the periodic images, so that a cell smaller
    than the cutoff, and an ion's own images, need no case of their own.

    Parameters
    ----------
    inside : ndarray (n, 3)
        Fractional coordinates in [0, 1).
    charges : ndarray (n,)
    cell : ndarray (3, 3)
    bins : ndarray (3,) of int
        Number of bins along each vector.
    spacings : ndarray (3,)
        Distances of opposite faces of the cell.
    alpha, cutoff : float
        Inverse length of the screening, and the range.
    contact : float
        Distance below which two ions count as being at the same place: between an ion
        without charge and another there is neither energy nor force.
    table_sp : ndarray (n_segments, 16)
        Polynomials of erfc and of its derivative on segments of width 1/16, from
        :func:`lode.electrostatics.erfc_table`.
    out : ndarray (n, 4)
        Potential, infinite at the place of another ion, and minus its gradient are
        added.
    virial : ndarray (3, 3)
        The strain derivative of the energy is added.

    Returns
    -------
    energy : float
    first, second : int
        Two charged ions at the same place, or -1.
    """
    n = inside.shape[0]
    m1 = bins[1]
    m2 = bins[2]
    reach = np.empty(3, dtype=np.int64)
    for x in range(3):
        reach[x] = int(math.ceil(cutoff * bins[x] / spacings[x]))
    start, order = binned(inside, bins)
    offsets = half_offsets(cell, bins, reach, cutoff)
    bin_at, image_at = bins_through_images(bins, reach)
    sorted_xyzq = np.empty((n, 4))
    for i in range(n):
        for x in range(3):
            sorted_xyzq[i, x] = (
                inside[order[i], 0] * cell[0, x]
                + inside[order[i], 1] * cell[1, x]
                + inside[order[i], 2] * cell[2, x]
            )
        sorted_xyzq[i, 3] = charges[order[i]]
    sums = np.zeros((n, 4))

    v00 = v01 = v02 = v11 = v12 = v22 = 0.0
    energy = 0.0
    first = second = -1
    scale = 16.0 * alpha
    cutoff_square = cutoff * cutoff
    contact_square = contact * contact
    capacity = 0
    source = np.empty(0, dtype=np.int64)
    near = np.empty(0, dtype=np.uint64)
    around = np.empty((4, 0))
    squares = np.empty(0)
    local = np.empty((0, 4))
    others = np.empty(offsets.shape[0], dtype=np.int64)
    shift = np.empty(3)
    for b in range(start.shape[0] - 1):
        if start[b] == start[b + 1]:
            continue
        b0 = b // (m1 * m2) + reach[0]
        b1 = (b // m2) % m1 + reach[1]
        b2 = b % m2 + reach[2]
        needed = 0
        for o in range(offsets.shape[0]):
            t0 = b0 + offsets[o, 0]
            t1 = b1 + offsets[o, 1]
            t2 = b2 + offsets[o, 2]
            other = (bin_at[0, t0] * m1 + bin_at[1, t1]) * m2 + bin_at[2, t2]
            others[o] = other
            needed += start[other + 1] - start[other]
        if needed > capacity:
            capacity = needed + needed // 4
            source = np.empty(capacity, dtype=np.int64)
            near = np.empty(capacity, dtype=np.uint64)
            around = np.empty((4, capacity))
            squares = np.empty(capacity)
            local = np.empty((capacity, 4))
        # Candidates of the bin, side by side in memory
        count = 0
        for o in range(offsets.shape[0]):
            other = others[o]
            if start[other] == start[other + 1]:
                continue
            t0 = b0 + offsets[o, 0]
            t1 = b1 + offsets[o, 1]
            t2 = b2 + offsets[o, 2]
            for x in range(3):
                shift[x] = (
                    image_at[0, t0] * cell[0, x]
                    + image_at[1, t1] * cell[1, x]
                    + image_at[2, t2] * cell[2, x]
                )
            for j in range(start[other], start[other + 1]):
                source[count] = j
                for x in range(3):
                    around[x, count] = sorted_xyzq[j, x] + shift[x]
                around[3, count] = sorted_xyzq[j, 3]
                count += 1
        for c in range(count):
            for x in range(4):
                local[c, x] = 0.0

        for own in range(start[b + 1] - start[b]):
            x_i = around[0, own]
            y_i = around[1, own]
            z_i = around[2, own]
            q_i = around[3, own]
            n_near = within(
                around, own + 1, count, x_i, y_i, z_i, cutoff_square, squares, near
            )
            phi_i = e_x = e_y = e_z = 0.0
            for h in range(n_near):
                c = near[h]
                square = squares[c]
                if square < contact_square:
                    q_j = around[3, c]
                    # Not in phi_i, as the energy has no part of it.
                    if q_i != 0.0 and q_j != 0.0:
                        first, second = order[start[b] + own], order[source[c]]
                    elif q_j != 0.0:
                        local[own, 0] = math.copysign(math.inf, q_j)
                    elif q_i != 0.0:
                        local[c, 0] = math.copysign(math.inf, q_i)
                    continue
                x = around[0, c] - x_i
                y = around[1, c] - y_i
                z = around[2, c] - z_i
                q_j = around[3, c]
                r_inverse = 1.0 / math.sqrt(square)
                u = scale * (square * r_inverse)
                whole = int(u)
                u -= whole + 0.5
                s = np.uint64(whole)
                # Estrin's scheme: shorter chains of dependent steps than Horner's
                u2 = u * u
                low = table_sp[s, 0] + table_sp[s, 1] * u
                low += (table_sp[s, 2] + table_sp[s, 3] * u) * u2
                high = table_sp[s, 4] + table_sp[s, 5] * u
                high += (table_sp[s, 6] + table_sp[s, 7] * u) * u2
                phi = (low + high * (u2 * u2)) * r_inverse
                low = table_sp[s, 8] + table_sp[s, 9] * u
                low += (table_sp[s, 10] + table_sp[s, 11] * u) * u2
                high = table_sp[s, 12] + table_sp[s, 13] * u
                high += (table_sp[s, 14] + table_sp[s, 15] * u) * u2
                field = phi + alpha * (low + high * (u2 * u2))
                field *= r_inverse * r_inverse
                phi_i += q_j * phi
                f_j = q_i * field
                f_i = q_j * field
                e_x -= f_i * x
                e_y -= f_i * y
                e_z -= f_i * z
                local[c, 0] += q_i * phi
                local[c, 1] += f_j * x
                local[c, 2] += f_j * y
                local[c, 3] += f_j * z
                f_j *= q_j
                v00 -= f_j * x * x
                v01 -= f_j * x * y
                v02 -= f_j * x * z
                v11 -= f_j * y * y
                v12 -= f_j * y * z
                v22 -= f_j * z * z
            energy += q_i * phi_i
            local[own, 0] += phi_i
            local[own, 1] += e_x
            local[own, 2] += e_y
            local[own, 3] += e_z
        for c in range(count):
            for x in range(4):
                sums[source[c], x] += local[c, x]
    for i in range(n):
        for x in range(4):
            out[order[i], x] += sums[i, x]
    sums_of_pairs = ((v00, v01, v02), (v01, v11, v12), (v02, v12, v22))
    virial += np.array(sums_of_pairs)
    return energy, first, second


# Reassociation and contraction let the sums over a block of ions run in vector
# registers: 1.2 times faster for 64 ions and 1.8 times for 4096 (energy alone, 1.5
# and 3.1 times). Inputs are checked to be finite, and NaN is left alone anyway.
@compiled(fastmath={"reassoc", "contract", "nsz"}, forceinline=True)
def reciprocal_space(
    inside, charges, reciprocal, line_nx, limits, volume, alpha, cutoff, out, virial
):
    """Sum over wave vectors of the screened charges, without k = 0.

    With S(k) = sum_j q_j exp(i k r_j), the potential at r is
    (4 pi/V) sum_k exp(-k^2/4 alpha^2)/k^2 Re[conj(S) exp(i k r)]. Only half of
    the wave vectors is visited. Within a column of equal (h, k), +l and -l share
    their products: two fused multiplications an ion and wave vector for S, four
    for the potential and its gradient.

    Parameters
    ----------
    inside : ndarray (n, 3)
        Fractional coordinates in [0, 1).
    charges : ndarray (n,)
    reciprocal : ndarray (3, 3)
        Rows are the reciprocal lattice vectors, with 2 pi.
    line_nx, limits : ndarray of int
        From :func:`~lode.core.lattice.half_sphere`.
    volume, alpha, cutoff : float
        Of the cell; of the screening; radius of the sphere of wave vectors.
    out : ndarray (n, 4)
        Potential and minus its gradient are added; with no rows, the energy and
        the virial alone are found.
    virial : ndarray (3, 3)
        The strain derivative of the energy is added.

    Returns
    -------
    energy : float
    """
    n = inside.shape[0]
    n_l = limits[2] + 1
    # The largest |l| of each line: +l and -l are summed together.
    widest_n = np.maximum(
        np.abs(line_nx[:, 2]), np.abs(line_nx[:, 2] + line_nx[:, 3] - 1)
    )
    # Real and imaginary part of the one-dimensional phases exp(i h theta_j)
    phase0 = np.empty((2, limits[0] + 1, BLOCK))
    phase1 = np.empty((2, limits[1] + 1, BLOCK))
    phase2 = np.empty((2, n_l, BLOCK))
    p_re = np.empty(BLOCK)
    p_im = np.empty(BLOCK)
    # First sums over ions, then coefficients of cos(l theta) and sin(l theta)
    sums_cl = np.zeros((line_nx.shape[0], 4, n_l))
    sum_re = np.empty(BLOCK)
    sum_im = np.empty(BLOCK)
    slope_re = np.empty(BLOCK)
    slope_im = np.empty(BLOCK)
    k_x = np.empty(3)
    energy = 0.0

    for sweep in range(2 if out.shape[0] > 0 else 1):
        for begin in range(0, n, BLOCK):
            size = min(BLOCK, n - begin)
            for axis in range(3):
                phase = phase0 if axis == 0 else (phase1 if axis == 1 else phase2)
                for j in range(size):
                    theta = 2.0 * math.pi * inside[begin + j, axis]
                    phase[0, 0, j] = 1.0
                    phase[1, 0, j] = 0.0
                    sum_re[j] = math.cos(theta)
                    sum_im[j] = math.sin(theta)
                for h in range(1, limits[axis] + 1):
                    for j in range(size):
                        re = phase[0, h - 1, j]
                        im = phase[1, h - 1, j]
                        phase[0, h, j] = re * sum_re[j] - im * sum_im[j]
                        phase[1, h, j] = re * sum_im[j] + im * sum_re[j]
            for c in range(line_nx.shape[0]):
                h = line_nx[c, 0]
                k = abs(line_nx[c, 1])
                sign = 1.0 if line_nx[c, 1] >= 0 else -1.0
                for j in range(size):
                    im = sign * phase1[1, k, j]
                    p_re[j] = phase0[0, h, j] * phase1[0, k, j] - phase0[1, h, j] * im
                    p_im[j] = phase0[1, h, j] * phase1[0, k, j] + phase0[0, h, j] * im
                if sweep == 0:
                    for j in range(size):
                        p_re[j] *= charges[begin + j]
                        p_im[j] *= charges[begin + j]
                    for l in range(widest_n[c] + 1):  # noqa: E741
                        re_cos = im_cos = re_sin = im_sin = 0.0
                        for j in range(size):
                            re_cos += p_re[j] * phase2[0, l, j]
                            im_sin += p_im[j] * phase2[1, l, j]
                            re_sin += p_re[j] * phase2[1, l, j]
                            im_cos += p_im[j] * phase2[0, l, j]
                        sums_cl[c, 0, l] += re_cos
                        sums_cl[c, 1, l] += im_cos
                        sums_cl[c, 2, l] += re_sin
                        sums_cl[c, 3, l] += im_sin
                    continue
                for j in range(size):
                    sum_re[j] = sum_im[j] = slope_re[j] = slope_im[j] = 0.0
                for l in range(widest_n[c] + 1):  # noqa: E741
                    cos_re = sums_cl[c, 0, l]
                    cos_im = sums_cl[c, 1, l]
                    sin_re = sums_cl[c, 2, l]
                    sin_im = sums_cl[c, 3, l]
                    for j in range(size):
                        cos = phase2[0, l, j]
                        sin = phase2[1, l, j]
                        sum_re[j] += cos_re * cos + sin_re * sin
                        sum_im[j] += cos_im * cos + sin_im * sin
                        slope_re[j] += l * (sin_im * cos - cos_im * sin)
                        slope_im[j] += l * (cos_re * sin - sin_re * cos)
                for j in range(size):
                    im = p_re[j] * sum_im[j] + p_im[j] * sum_re[j]
                    slope = p_re[j] * slope_im[j] + p_im[j] * slope_re[j]
                    g0 = line_nx[c, 0] * im
                    g1 = line_nx[c, 1] * im
                    o = begin + j
                    out[o, 0] += p_re[j] * sum_re[j] - p_im[j] * sum_im[j]
                    for x in range(3):
                        out[o, 1 + x] += (
                            g0 * reciprocal[0, x]
                            + g1 * reciprocal[1, x]
                            + slope * reciprocal[2, x]
                        )
        if sweep == 1:
            break
        for c in range(line_nx.shape[0]):
            on_axis = line_nx[c, 0] == 0 and line_nx[c, 1] == 0
            for l in range(widest_n[c] + 1):  # noqa: E741
                re_cos = sums_cl[c, 0, l]
                im_cos = sums_cl[c, 1, l]
                re_sin = sums_cl[c, 2, l]
                im_sin = sums_cl[c, 3, l]
                for q in range(4):
                    sums_cl[c, q, l] = 0.0
                for sign in (1.0, -1.0):
                    # l = 0 has one sign, and on the axis so has every l.
                    if sign < 0.0 and (l == 0 or on_axis):
                        continue
                    if on_axis and l == 0:
                        continue
                    square = 0.0
                    for x in range(3):
                        k_x[x] = line_nx[c, 0] * reciprocal[0, x]
                        k_x[x] += line_nx[c, 1] * reciprocal[1, x]
                        k_x[x] += sign * l * reciprocal[2, x]
                        square += k_x[x] * k_x[x]
                    if square > cutoff * cutoff:
                        continue
                    s_re = re_cos - sign * im_sin
                    s_im = im_cos + sign * re_sin
                    weight = 8.0 * math.pi / volume
                    weight *= math.exp(-square / (4.0 * alpha * alpha)) / square
                    part = 0.5 * weight * (s_re * s_re + s_im * s_im)
                    energy += part
                    factor = part * (2.0 / square + 0.5 / (alpha * alpha))
                    for x in range(3):
                        virial[x, x] -= part
                        for y in range(3):
                            virial[x, y] += factor * k_x[x] * k_x[y]
                    # G = weight conj(S); G(+l) e^{il} + G(-l) e^{-il} =
                    # [G(+l) + G(-l)] cos + i [G(+l) - G(-l)] sin
                    sums_cl[c, 0, l] += weight * s_re
                    sums_cl[c, 1, l] -= weight * s_im
                    sums_cl[c, 2, l] += sign * weight * s_im
                    sums_cl[c, 3, l] += sign * weight * s_re
    return energy


@compiled
def periodic_sum(
    positions, charges, lattice, ranges, contact, table_sp, gradient, constant
):
    """All terms of a periodic sum; one call, as each takes as long as many pairs.

    Parameters
    ----------
    positions : ndarray (n, 3)
    charges : ndarray (n,)
    lattice : tuple
        From :func:`lattice`.
    ranges : tuple of float
        Inverse length of the screening, and the ranges of both sums; that of wave
        vectors is zero if they are summed elsewhere.
    contact, table_sp
        As in :func:`real_space`.
    gradient : bool
        Potential and forces are wanted too; without it they hold a part of the sum.
    constant : float
        Coulomb constant.

    Returns
    -------
    energy : float
    first, second : int
        Two charged ions at the same place, or -1.
    potential : ndarray (n,)
    forces : ndarray (n, 3)
    stress : ndarray (3, 3)
    """
    cell, inverse, reciprocal, volume, lengths, spacings = lattice
    alpha, cutoff, wave_cutoff = ranges
    n = charges.shape[0]
    out = np.zeros((n, 4))
    virial = np.zeros((3, 3))
    width = (IONS_PER_BIN * volume / n) ** (1.0 / 3.0)
    bins = np.empty(3, dtype=np.int64)
    for x in range(3):
        bins[x] = max(1, int(spacings[x] / width))
    inside = fractional(positions, inverse)
    pairs = (cell, bins, spacings, alpha, cutoff, contact, table_sp)
    energy, first, second = real_space(inside, charges, *pairs, out, virial)
    line_nx, limits = half_sphere(reciprocal, lengths / (2.0 * math.pi), wave_cutoff)
    waves = (reciprocal, line_nx, limits, volume, alpha, wave_cutoff)
    wanted = out if gradient else out[:0]
    energy += reciprocal_space(inside, charges, *waves, wanted, virial)
    total = squares = 0.0
    for j in range(n):
        total += charges[j]
        squares += charges[j] * charges[j]
    background = math.pi * total / (volume * alpha**2)
    own = alpha / math.sqrt(math.pi)
    energy -= own * squares + 0.5 * background * total
    for j in range(n):
        out[j, 0] -= 2.0 * own * charges[j] + background
    for x in range(3):
        virial[x, x] += 0.5 * background * total
        for y in range(3):
            virial[x, y] *= constant / volume
    potential, forces = scaled(out, charges, constant)
    return constant * energy, first, second, potential, forces, virial


@compiled
def scaled(out, charges, constant):
    """Potential and forces, in units, from potential and minus its gradient."""
    n = charges.shape[0]
    potential, forces = np.empty(n), np.empty((n, 3))
    for j in range(n):
        potential[j] = constant * out[j, 0]
        for x in range(3):
            forces[j, x] = constant * charges[j] * out[j, 1 + x]
    return potential, forces


@compiled
def finite_sum(positions, charges, contact, constant):
    """Pair sum of 1/r without periodic images.

    Parameters
    ----------
    positions : ndarray (n, 3)
    charges : ndarray (n,)
    contact : float
        Distance below which two ions count as being at the same place.
    constant : float
        Coulomb constant.

    Returns
    -------
    energy : float
    first, second : int
        Two charged ions at the same place, or -1.
    potential : ndarray (n,)
    forces : ndarray (n, 3)
    """
    n = positions.shape[0]
    out = np.zeros((n, 4))
    energy = 0.0
    first = second = -1
    for i in range(n):
        for j in range(i):
            x = positions[i, 0] - positions[j, 0]
            y = positions[i, 1] - positions[j, 1]
            z = positions[i, 2] - positions[j, 2]
            r = math.sqrt(x * x + y * y + z * z)
            if r <= contact:
                if charges[i] != 0.0 and charges[j] != 0.0:
                    first, second = j, i
                elif charges[j] != 0.0:
                    out[i, 0] = math.copysign(math.inf, charges[j])
                elif charges[i] != 0.0:
                    out[j, 0] = math.copysign(math.inf, charges[i])
                continue
            phi = 1.0 / r
            field = phi / (r * r)
            energy += charges[i] * charges[j] * phi
            out[i, 0] += charges[j] * phi
            out[i, 1] += charges[j] * field * x
            out[i, 2] += charges[j] * field * y
            out[i, 3] += charges[j] * field * z
            out[j, 0] += charges[i] * phi
            out[j, 1] -= charges[i] * field * x
            out[j, 2] -= charges[i] * field * y
            out[j, 3] -= charges[i] * field * z
    potential, forces = scaled(out, charges, constant)
    return constant * energy, first, second, potential, forces
