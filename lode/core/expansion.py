"""Compiled loops of :mod:`lode.expansion`: harmonics, pairs, plane waves.

Index legend: j centre, i neighbour, a species, l and m angular, n radial function
padded to whole vectors, q radial mode, k wave vector. Harmonics stand at
l * l + l + m.
"""

import math

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy", nogil=True)
def harmonic_factors(l_max):
    """Constants of the recurrences of the normalised Legendre functions.

    Returns
    -------
    factors : ndarray (2, (l_max + 1)**2)
        P_lm = factors[0] (z P_(l-1)m - factors[1] P_(l-2)m); the diagonal holds
        P_mm / sin^m, times √2 for m > 0.
    """
    factors = np.zeros((2, (l_max + 1) ** 2))
    diagonal = 1.0 / math.sqrt(4.0 * math.pi)
    for m in range(l_max + 1):
        if m == 1:
            diagonal *= math.sqrt(3.0)
        elif m > 1:
            diagonal *= math.sqrt((2 * m + 1) / (2.0 * m))
        factors[0, m * m + 2 * m] = diagonal
        for l in range(m + 1, l_max + 1):
            at = l * l + l + m
            factors[0, at] = math.sqrt((4.0 * l * l - 1) / (l * l - m * m))
            if l > m + 1:
                lower = l - 1.0
                factors[1, at] = math.sqrt(
                    (lower * lower - m * m) / (4 * lower * lower - 1)
                )
    return factors


# fastmath "contract" allows fused multiply-adds: 1.3 times faster loops; NaN and
# infinity keep their meaning.
@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def _harmonics(x, y, z, l_max, factors, y_lm):
    """Real spherical harmonics of a unit vector, without Condon-Shortley phase."""
    cosine = 1.0
    sine = 0.0
    for m in range(l_max + 1):
        before = 0.0
        value = factors[0, m * m + 2 * m]
        y_lm[m * m + 2 * m] = value * cosine
        if m > 0:
            y_lm[m * m] = value * sine
        for l in range(m + 1, l_max + 1):
            at = l * l + l + m
            after = factors[0, at] * (z * value - factors[1, at] * before)
            before = value
            value = after
            y_lm[at] = value * cosine
            if m > 0:
                y_lm[at - 2 * m] = value * sine
        rotated = cosine * x - sine * y
        sine = sine * x + cosine * y
        cosine = rotated


@njit(cache=True, error_model="numpy", nogil=True)
def harmonics(vectors, l_max):
    """Real spherical harmonics of directions.

    Parameters
    ----------
    vectors : ndarray (n, 3)
        Of any length; a zero vector counts as (0, 0, 1).
    l_max : int

    Returns
    -------
    ndarray (n, (l_max + 1)**2)
    """
    factors = harmonic_factors(l_max)
    y_vm = np.empty((vectors.shape[0], (l_max + 1) ** 2))
    for v in range(vectors.shape[0]):
        x, y, z = vectors[v, 0], vectors[v, 1], vectors[v, 2]
        r = math.sqrt(x * x + y * y + z * z)
        if r > 0.0:
            _harmonics(x / r, y / r, z / r, l_max, factors, y_vm[v])
        else:
            _harmonics(0.0, 0.0, 1.0, l_max, factors, y_vm[v])
    return y_vm


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def _horner(table, interval, t, values):
    """Polynomials of degree 7 in one interval; written out to stay in registers."""
    p0 = table[interval, 0]
    p1 = table[interval, 1]
    p2 = table[interval, 2]
    p3 = table[interval, 3]
    p4 = table[interval, 4]
    p5 = table[interval, 5]
    p6 = table[interval, 6]
    p7 = table[interval, 7]
    for c in range(values.shape[0]):
        high = p4[c] + t * (p5[c] + t * (p6[c] + t * p7[c]))
        values[c] = p0[c] + t * (p1[c] + t * (p2[c] + t * (p3[c] + t * high)))


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def _accumulate(centre_mn, y_lm, f_ln, l_max):
    """Add y_lm f_ln to one centre."""
    for l in range(l_max + 1):
        f_n = f_ln[l]
        for m in range(l * l, (l + 1) * (l + 1)):
            y = y_lm[m]
            o_n = centre_mn[m]
            # A loop of run-time length is vectorised; a literal one is unrolled
            # into scalars: three times slower.
            for n in range(o_n.shape[0]):
                o_n[n] += y * f_n[n]


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def _accumulate_both(centre_mn, other_mn, y_lm, f_ln, l_max):
    """Add y_lm f_ln to one centre and, seen the other way, to its neighbour."""
    for l in range(l_max + 1):
        sign = -1.0 if l % 2 == 1 else 1.0
        f_n = f_ln[l]
        for m in range(l * l, (l + 1) * (l + 1)):
            y = y_lm[m]
            o_n = centre_mn[m]
            p_n = other_mn[m]
            for n in range(o_n.shape[0]):
                value = y * f_n[n]
                o_n[n] += value
                p_n[n] += sign * value


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def add_pairs(
    first_p,
    second_p,
    vector_p,
    both,
    species_i,
    charge_i,
    table,
    step,
    reach,
    tail,
    exponent,
    cutoff,
    cutoff_width,
    l_max,
    first_row,
    out_jamn,
):
    """Add f_nl(r) Y_lm of every pair to the coefficients.

    Parameters
    ----------
    first_p, second_p : ndarray (n_pairs,) of int
        Centre and neighbour.
    vector_p : ndarray (n_pairs, 3)
        From centre to neighbour.
    both : bool
        A half list: the neighbour sees the centre too.
    species_i : ndarray (n_atoms,) of int
        Place of each atom's species.
    charge_i : ndarray (n_atoms,) or (0,)
        Weight of each atom's field; empty if it is one for all.
    table, step, reach, tail : PairTable
        Polynomials, their interval, the range, the far tail.
    exponent : float
        Of the far tail.
    cutoff, cutoff_width : float
        Shifted cosine over the last cutoff_width; infinite cutoff for none.
    first_row : int
        Atom of the first row of out_jamn.
    out_jamn : ndarray (n_rows, n_species, (l_max + 1)**2, width)
        Added to.
    """
    factors = harmonic_factors(l_max)
    width = out_jamn.shape[3]
    y_lm = np.empty((l_max + 1) ** 2)
    f_ln = np.empty((l_max + 1, width))
    f_c = f_ln.ravel()
    g_ln = np.empty_like(f_ln)
    g_c = g_ln.ravel()
    n_tail = tail.shape[0]
    last = table.shape[0] - 1
    for p in range(first_p.shape[0]):
        x, y, z = vector_p[p, 0], vector_p[p, 1], vector_p[p, 2]
        r = math.sqrt(x * x + y * y + z * z)
        if r > cutoff:
            continue
        if r < reach:
            place = r / step
            interval = min(int(place), last)
            _horner(table, interval, 2.0 * (place - interval) - 1.0, f_c)
        elif n_tail > 0:
            u = (reach / r) ** 2
            for c in range(f_c.shape[0]):
                f_c[c] = tail[n_tail - 1, c]
            for t in range(n_tail - 2, -1, -1):
                for c in range(f_c.shape[0]):
                    f_c[c] = f_c[c] * u + tail[t, c]
            power = r**-exponent
            for l in range(l_max + 1):
                for n in range(width):
                    f_ln[l, n] *= power
                power /= r
        else:
            continue
        if r > cutoff - cutoff_width:
            phase = math.pi * (r - cutoff + cutoff_width) / cutoff_width
            smooth = 0.5 * (1.0 + math.cos(phase))
            for c in range(f_c.shape[0]):
                f_c[c] *= smooth
        if r > 0.0:
            _harmonics(x / r, y / r, z / r, l_max, factors, y_lm)
        else:
            _harmonics(0.0, 0.0, 1.0, l_max, factors, y_lm)
        i, j = first_p[p], second_p[p]
        centre_mn = out_jamn[i - first_row, species_i[j]]
        if charge_i.shape[0] > 0:
            if charge_i[j] != 0.0:
                for c in range(f_c.shape[0]):
                    g_c[c] = charge_i[j] * f_c[c]
                _accumulate(centre_mn, y_lm, g_ln, l_max)
            if both and charge_i[i] != 0.0:
                for l in range(l_max + 1):
                    weight = -charge_i[i] if l % 2 == 1 else charge_i[i]
                    for n in range(width):
                        g_ln[l, n] = weight * f_ln[l, n]
                other_mn = out_jamn[j - first_row, species_i[i]]
                _accumulate(other_mn, y_lm, g_ln, l_max)
        elif both:
            other_mn = out_jamn[j - first_row, species_i[i]]
            _accumulate_both(centre_mn, other_mn, y_lm, f_ln, l_max)
        else:
            _accumulate(centre_mn, y_lm, f_ln, l_max)


@njit(cache=True, error_model="numpy", nogil=True)
def _column(reciprocal, limit, h, k):
    """First and last l of the wave vectors (h, k, l) within the limit."""
    x = h * reciprocal[0, 0] + k * reciprocal[1, 0]
    y = h * reciprocal[0, 1] + k * reciprocal[1, 1]
    z = h * reciprocal[0, 2] + k * reciprocal[1, 2]
    cx, cy, cz = reciprocal[2, 0], reciprocal[2, 1], reciprocal[2, 2]
    length2 = cx * cx + cy * cy + cz * cz
    along = (x * cx + y * cy + z * cz) / length2
    root2 = along * along - (x * x + y * y + z * z - limit * limit) / length2
    if root2 < 0.0:
        return 1, 0
    root = math.sqrt(root2)
    low = math.ceil(-along - root)
    high = math.floor(-along + root)
    if h == 0 and k == 0:
        low = 1
    return low, high


@njit(cache=True, error_model="numpy", nogil=True)
def half_space(reciprocal, limit, h_max, k_max):
    """Half of the wave vectors within a sphere, as columns along l.

    Parameters
    ----------
    reciprocal : ndarray (3, 3)
        Rows are the reciprocal vectors, 2π included.
    limit : float
        Radius of the sphere.
    h_max, k_max : int
        Bounds of the first two indices.

    Returns
    -------
    ndarray (n_columns, 4) of int
        h, k, first l, number of l.
    """
    count = 0
    for h in range(h_max + 1):
        for k in range(-k_max if h > 0 else 0, k_max + 1):
            low, high = _column(reciprocal, limit, h, k)
            if high >= low:
                count += 1
    columns = np.empty((count, 4), dtype=np.int64)
    count = 0
    for h in range(h_max + 1):
        for k in range(-k_max if h > 0 else 0, k_max + 1):
            low, high = _column(reciprocal, limit, h, k)
            if high >= low:
                columns[count, 0] = h
                columns[count, 1] = k
                columns[count, 2] = low
                columns[count, 3] = high - low + 1
                count += 1
    return columns


@njit(cache=True, error_model="numpy", nogil=True)
def wave_vectors(reciprocal, columns):
    """Cartesian wave vectors of the columns, (n_k, 3)."""
    k_kx = np.empty((columns[:, 3].sum(), 3))
    at = 0
    for c in range(columns.shape[0]):
        for l in range(columns[c, 2], columns[c, 2] + columns[c, 3]):
            for x in range(3):
                k_kx[at, x] = (
                    columns[c, 0] * reciprocal[0, x]
                    + columns[c, 1] * reciprocal[1, x]
                    + l * reciprocal[2, x]
                )
            at += 1
    return k_kx


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def _powers(angle, top, real, imag):
    """exp(i n angle) for n = -top ... top by recurrence."""
    c = math.cos(angle)
    s = math.sin(angle)
    real[top] = 1.0
    imag[top] = 0.0
    for n in range(1, top + 1):
        real[top + n] = real[top + n - 1] * c - imag[top + n - 1] * s
        imag[top + n] = real[top + n - 1] * s + imag[top + n - 1] * c
        real[top - n] = real[top + n]
        imag[top - n] = -imag[top + n]


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def plane_waves(position_jx, reciprocal, columns, top, real_jk, imag_jk):
    """Phases exp(i k·r_j) of whole columns of wave vectors.

    Parameters
    ----------
    position_jx : ndarray (n_atoms, 3)
    reciprocal : ndarray (3, 3)
    columns : ndarray (n_columns, 4) of int
        From half_space.
    top : ndarray (3,) of int
        Largest |h|, |k|, |l|.
    real_jk, imag_jk : ndarray (n_atoms, n_k)
        Written.
    """
    real_h = np.empty(2 * top[0] + 1)
    imag_h = np.empty(2 * top[0] + 1)
    real_k = np.empty(2 * top[1] + 1)
    imag_k = np.empty(2 * top[1] + 1)
    real_l = np.empty(2 * top[2] + 1)
    imag_l = np.empty(2 * top[2] + 1)
    for j in range(position_jx.shape[0]):
        x, y, z = position_jx[j, 0], position_jx[j, 1], position_jx[j, 2]
        for axis in range(3):
            angle = (
                reciprocal[axis, 0] * x
                + reciprocal[axis, 1] * y
                + reciprocal[axis, 2] * z
            )
            if axis == 0:
                _powers(angle, top[0], real_h, imag_h)
            elif axis == 1:
                _powers(angle, top[1], real_k, imag_k)
            else:
                _powers(angle, top[2], real_l, imag_l)
        at = 0
        for c in range(columns.shape[0]):
            h = columns[c, 0] + top[0]
            k = columns[c, 1] + top[1]
            re = real_h[h] * real_k[k] - imag_h[h] * imag_k[k]
            im = real_h[h] * imag_k[k] + imag_h[h] * real_k[k]
            n = columns[c, 3]
            start = columns[c, 2] + top[2]
            # Slices, whose indices cannot be negative: such a loop is vectorised.
            c_l = real_l[start : start + n]
            s_l = imag_l[start : start + n]
            real_k_out = real_jk[j, at : at + n]
            imag_k_out = imag_jk[j, at : at + n]
            for l in range(n):
                real_k_out[l] = re * c_l[l] - im * s_l[l]
                imag_k_out[l] = re * s_l[l] + im * c_l[l]
            at += columns[c, 3]


@njit(cache=True, error_model="numpy", nogil=True)
def structure_factor(real_jk, imag_jk, species_j, real_ak, imag_ak):
    """Add the phases of the atoms of each species."""
    for j in range(real_jk.shape[0]):
        a = species_j[j]
        for k in range(real_jk.shape[1]):
            real_ak[a, k] += real_jk[j, k]
            imag_ak[a, k] += imag_jk[j, k]


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def field_phases(real_jk, imag_jk, real_ak, imag_ak, even_ajk, odd_ajk):
    """Real and imaginary part of exp(i k·r_j) times the conjugate S_a(k)."""
    for a in range(real_ak.shape[0]):
        for j in range(real_jk.shape[0]):
            for k in range(real_jk.shape[1]):
                re, im = real_jk[j, k], imag_jk[j, k]
                even_ajk[a, j, k] = re * real_ak[a, k] + im * imag_ak[a, k]
                odd_ajk[a, j, k] = im * real_ak[a, k] - re * imag_ak[a, k]


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def wave_columns(k_kx, weight_k, table, step, n_modes, l_max, even_kc, odd_kc):
    """Columns weight × Y_lm(k) × mode_lq(|k|) of the matrix product.

    Parameters
    ----------
    k_kx : ndarray (n_k, 3)
        Wave vectors.
    weight_k : ndarray (n_k,)
        2 (4π/Ω) ĝ(k).
    table, step, n_modes : ModeTable
    l_max : int
    even_kc, odd_kc : ndarray (n_k, n_columns)
        Written; columns (l, m, q) of even and of odd l, with the signs of
        2 (-1)^(l/2) Re and 2 (-1)^((l+1)/2) Im.
    """
    factors = harmonic_factors(l_max)
    y_lm = np.empty((l_max + 1) ** 2)
    u_lq = np.empty(table.shape[2])
    last = table.shape[0] - 1
    for k in range(k_kx.shape[0]):
        x, y, z = k_kx[k, 0], k_kx[k, 1], k_kx[k, 2]
        norm = math.sqrt(x * x + y * y + z * z)
        _harmonics(x / norm, y / norm, z / norm, l_max, factors, y_lm)
        place = norm / step
        interval = min(int(place), last)
        _horner(table, interval, 2.0 * (place - interval) - 1.0, u_lq)
        even = 0
        odd = 0
        mode = 0
        for l in range(l_max + 1):
            sign = weight_k[k] if ((l + 1) // 2) % 2 == 0 else -weight_k[k]
            for m in range(l * l, (l + 1) * (l + 1)):
                y = sign * y_lm[m]
                if l % 2 == 0:
                    for q in range(n_modes[l]):
                        even_kc[k, even + q] = y * u_lq[mode + q]
                    even += n_modes[l]
                else:
                    for q in range(n_modes[l]):
                        odd_kc[k, odd + q] = y * u_lq[mode + q]
                    odd += n_modes[l]
            mode += n_modes[l]


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def add_modes(even_ajc, odd_ajc, n_modes, expansion, l_max, out_jamn):
    """Expand radial modes into radial functions and add to the coefficients."""
    n_max = expansion.shape[1]
    for j in range(out_jamn.shape[0]):
        for a in range(out_jamn.shape[1]):
            even = 0
            odd = 0
            mode = 0
            for l in range(l_max + 1):
                for m in range(l * l, (l + 1) * (l + 1)):
                    for q in range(n_modes[l]):
                        if l % 2 == 0:
                            value = even_ajc[a, j, even + q]
                        else:
                            value = odd_ajc[a, j, odd + q]
                        for n in range(n_max):
                            out_jamn[j, a, m, n] += value * expansion[mode + q, n]
                    if l % 2 == 0:
                        even += n_modes[l]
                    else:
                        odd += n_modes[l]
                mode += n_modes[l]


@njit(cache=True, error_model="numpy", nogil=True)
def wave_tables(k_kx, table, step, l_max, y_mk, u_qk):
    """Harmonics and radial modes at wave vectors.

    Parameters
    ----------
    k_kx : ndarray (n_k, 3)
        Wave vectors.
    table, step : ModeTable
    l_max : int
    y_mk : ndarray ((l_max + 1)**2, n_k)
    u_qk : ndarray (n_modes, n_k)
        Written.
    """
    factors = harmonic_factors(l_max)
    y_lm = np.empty(y_mk.shape[0])
    u_lq = np.empty(u_qk.shape[0])
    last = table.shape[0] - 1
    for k in range(k_kx.shape[0]):
        x, y, z = k_kx[k, 0], k_kx[k, 1], k_kx[k, 2]
        norm = math.sqrt(x * x + y * y + z * z)
        _harmonics(x / norm, y / norm, z / norm, l_max, factors, y_lm)
        place = norm / step
        interval = min(int(place), last)
        _horner(table, interval, 2.0 * (place - interval) - 1.0, u_lq)
        for m in range(y_lm.shape[0]):
            y_mk[m, k] = y_lm[m]
        for q in range(u_lq.shape[0]):
            u_qk[q, k] = u_lq[q]


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def wave_grid(place_k, y_k, u_k, l, y_other_k, u_other_k, l_other, field_sk, grid_g):
    """Modes of a transform that gives one column in its real part, one in the other.

    A column is T(k) F(k) with T = i^l Y_lm u and T(-k) its conjugate, so that its
    transform is real if F is that of a real field.

    Parameters
    ----------
    place_k : ndarray (n_k,) of int
        Places of half of the wave vectors in the grid; -k stands as far from the
        end as k from the beginning.
    y_k, u_k : ndarray (n_k,)
        Harmonic and radial mode of the first column.
    l : int
        Its angular momentum.
    y_other_k, u_other_k, l_other
        Those of the column in the imaginary part; l_other = -1 for none.
    field_sk : ndarray (2, n_k) of complex
        F at k and at -k.
    grid_g : ndarray (n_g,) of complex
        Written at the wave vectors only.
    """
    end = grid_g.shape[0] - 1
    # i^l as (real, imaginary).
    real = (1.0, 0.0, -1.0, 0.0)[l % 4]
    imag = (0.0, 1.0, 0.0, -1.0)[l % 4]
    if l_other < 0:
        for k in range(place_k.shape[0]):
            t = y_k[k] * u_k[k]
            g = place_k[k]
            grid_g[g] = complex(t * real, t * imag) * field_sk[0, k]
            grid_g[end - g] = complex(t * real, -t * imag) * field_sk[1, k]
        return
    real_other = (1.0, 0.0, -1.0, 0.0)[l_other % 4]
    imag_other = (0.0, 1.0, 0.0, -1.0)[l_other % 4]
    for k in range(place_k.shape[0]):
        t = y_k[k] * u_k[k]
        o = y_other_k[k] * u_other_k[k]
        re, im = t * real, t * imag
        re_other, im_other = o * real_other, o * imag_other
        g = place_k[k]
        # T + i T', and conj(T) + i conj(T').
        grid_g[g] = complex(re - im_other, im + re_other) * field_sk[0, k]
        grid_g[end - g] = complex(re + im_other, re_other - im) * field_sk[1, k]


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def add_transforms(value_tj, real_tx, imag_tx, expansion, out_jamn):
    """Expand radial modes, as transforms give them, and add to the coefficients.

    Parameters
    ----------
    value_tj : ndarray (n_transforms, n_atoms) of complex
    real_tx, imag_tx : ndarray (n_transforms, 3) of int
        Species, harmonic and mode of both parts; species -1 for nothing.
    expansion : ndarray (n_modes, n_max)
        Of the modes in radial functions.
    out_jamn : ndarray (n_atoms, n_species, (l_max + 1)**2, width)
        Added to.
    """
    n_max = expansion.shape[1]
    # As many atoms at a time as the caches hold.
    for start in range(0, out_jamn.shape[0], 32):
        stop = min(start + 32, out_jamn.shape[0])
        for t in range(value_tj.shape[0]):
            a, m, q = real_tx[t, 0], real_tx[t, 1], real_tx[t, 2]
            b, m_b, q_b = imag_tx[t, 0], imag_tx[t, 1], imag_tx[t, 2]
            for j in range(start, stop):
                value = value_tj[t, j]
                for n in range(n_max):
                    out_jamn[j, a, m, n] += value.real * expansion[q, n]
                if b >= 0:
                    for n in range(n_max):
                        out_jamn[j, b, m_b, n] += value.imag * expansion[q_b, n]
