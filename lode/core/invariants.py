"""Compiled loops of :mod:`lode.invariants`.

Index legend: j centre, a species, n radial function, m harmonic l * l + l + m,
x and y channels (a, n), f feature.
"""

import math
import operator

import numpy as np
from numba import config, njit, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, models, overload, register_model

# As in core/expansion.py, which the tests compare: a core file imports no other.
LANES = 8
_FEATURES = config.CPU_FEATURES or get_host_cpu_features()
_ROWS = 8 if "+avx512f" in _FEATURES else 6
# Numba does not see what is read and written by pointers: these are checked here.
_CHECKED = bool(config.BOUNDSCHECK)


def _vector(width):
    return cgutils.ir.VectorType(cgutils.ir.DoubleType(), width)


def _place(context, builder, array_type, array, i, j):
    """Pointer to an element of a matrix, and the steps along both axes."""
    made = context.make_array(array_type)(context, builder, array)
    place = cgutils.get_item_pointer(context, builder, array_type, made, [i, j])
    steps = [
        builder.sdiv(step, step.type(8))
        for step in cgutils.unpack_tuple(builder, made.strides)
    ]
    # Known to the compiler, it costs nothing.
    if array_type.layout in "CF":
        axis = "FC".index(array_type.layout)
        steps[axis] = steps[axis].type(1)
    return place, *steps


def _read(builder, place, width):
    return builder.load(builder.bitcast(place, _vector(width).as_pointer()), align=8)


def _write(builder, value, place):
    builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=8)


def _spread(builder, value, width):
    """The same number in every lane."""
    empty = _vector(width)(cgutils.ir.Undefined)
    index = cgutils.ir.IntType(32)
    first = builder.insert_element(empty, value, index(0))
    mask = cgutils.ir.VectorType(index, width)([0] * width)
    return builder.shuffle_vector(first, empty, mask)


def _tile(width):
    """Compiled product of a few rows and ``width`` columns, see _add_tile."""

    @intrinsic
    def tile(_, out_rc, r, c, rows, left_rk, l, right_kc, d, start, stop, fresh):
        def code(context, builder, signature, values):
            out, r, c, rows, left, l, right, d, start, stop, fresh = values
            types_of = signature.args
            place = [context, builder]
            out, out_step, _ = _place(*place, types_of[0], out, r, c)
            left, left_step, k_step = _place(*place, types_of[4], left, l, start)
            right, right_step, _ = _place(*place, types_of[6], right, start, d)
            count, whole = builder.sub(stop, start), stop.type
            nothing = _spread(builder, cgutils.ir.DoubleType()(0.0), width)
            end = builder.append_basic_block()
            switch = builder.switch(rows, end)
            # One loop for each number of rows, so that every sum has a register.
            for n in range(1, _ROWS + 1):
                before, body, after = (builder.append_basic_block() for _ in range(3))
                switch.add_case(whole(n), before)
                builder.position_at_end(before)
                outs, lefts = (
                    [builder.gep(p, [builder.mul(step, whole(i))]) for i in range(n)]
                    for p, step in ((out, out_step), (left, left_step))
                )
                initial = [
                    builder.select(fresh, nothing, _read(builder, p, width))
                    for p in outs
                ]
                builder.branch(body)
                builder.position_at_end(body)
                k = builder.phi(whole)
                sums = [builder.phi(_vector(width)) for _ in range(n)]
                row = builder.gep(right, [builder.mul(k, right_step)])
                row = _read(builder, row, width)
                following = []
                k_left = builder.mul(k, k_step)
                for p, total in zip(lefts, sums, strict=True):
                    factor = builder.load(builder.gep(p, [k_left]))
                    term = builder.fmul(
                        _spread(builder, factor, width), row, flags=("contract",)
                    )
                    following.append(builder.fadd(total, term, flags=("contract",)))
                k_next = builder.add(k, whole(1))
                for phi, first, later in zip(
                    [k, *sums], [whole(0), *initial], [k_next, *following], strict=True
                ):
                    phi.add_incoming(first, before)
                    phi.add_incoming(later, body)
                more = builder.icmp_signed("<", k_next, count)
                builder.cbranch(more, body, after)
                builder.position_at_end(after)
                for p, total in zip(outs, following, strict=True):
                    _write(builder, total, p)
                builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        i = types.intp
        arguments = (out_rc, i, i, i, left_rk, i, right_kc, i, i, i, types.boolean)
        return types.void(*arguments), code

    return tile


_tile_4 = _tile(4)
_tile_8 = _tile(8)


def _add_tile(out_rc, r, c, rows, width, left_rk, l, right_kc, d, start, stop, fresh):
    """Add a product to some rows, at most _ROWS, and 4 or 8 columns of a matrix.

    out[r + i, c + x] += sum over start <= k < stop of left[l + i, k] right[k, d + x];
    if fresh, out is written, not added to. The range of k must not be empty; the rows
    of out and right are contiguous. Compiled, the sums stay in registers: 14 times
    faster than loops, which LLVM does not turn into this.
    """
    left, right = left_rk[l : l + rows], right_kc[:, d : d + width]
    part = out_rc[r : r + rows, c : c + width]
    if fresh:
        part[:] = 0.0
    # In the order of k whatever the number of rows, which BLAS does not keep.
    part += (left[:, start:stop, None] * right[start:stop]).sum(axis=1)


@njit(cache=True, error_model="numpy", nogil=True)
def _check_block(a_ij, i, i_stop, j, j_stop):
    """Error if a block is not inside of a matrix."""
    if not (0 <= i < i_stop <= a_ij.shape[0] and 0 <= j < j_stop <= a_ij.shape[1]):
        raise IndexError("block out of bounds")


# Inlined: as a call, its many arguments take longer than a small product.
@overload(_add_tile, jit_options={"forceinline": True})
def _add_tile_compiled(
    out_rc, r, c, rows, width, left_rk, l, right_kc, d, start, stop, fresh
):
    def compiled(
        out_rc, r, c, rows, width, left_rk, l, right_kc, d, start, stop, fresh
    ):
        if _CHECKED:
            _check_block(out_rc, r, r + rows, c, c + width)
            _check_block(left_rk, l, l + rows, start, stop)
            _check_block(right_kc, start, stop, d, d + width)
            if rows > _ROWS:
                raise IndexError("too many rows for a tile")
        if width == 8:
            _tile_8(out_rc, r, c, rows, left_rk, l, right_kc, d, start, stop, fresh)
        else:
            _tile_4(out_rc, r, c, rows, left_rk, l, right_kc, d, start, stop, fresh)

    return compiled


class _Lanes(types.Type):
    """Numba's type of LANES floats side by side."""


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, lanes_type):
        super().__init__(manager, lanes_type, _vector(LANES))


_lanes = _Lanes("lanes")


def _arithmetic(instruction):
    """Overload of an operator for lanes with lanes or with a number."""

    @intrinsic
    def applied(_, a, b):
        def code(_, builder, signature, values):
            a, b = (
                v if t == _lanes else _spread(builder, v, LANES)
                for v, t in zip(values, signature.args, strict=True)
            )
            return getattr(builder, instruction)(a, b, flags=("contract",))

        return _lanes(a, b), code

    def typed(a, b):
        if _lanes in (a, b) and {a, b} <= {_lanes, types.float64}:
            return lambda a, b: applied(a, b)
        return None

    return typed


overload(operator.add)(_arithmetic("fadd"))
overload(operator.sub)(_arithmetic("fsub"))
overload(operator.mul)(_arithmetic("fmul"))


@intrinsic
def _load_compiled(_, a_ij, i, j):
    def code(context, builder, signature, values):
        place, *_ = _place(context, builder, signature.args[0], *values)
        return _read(builder, place, LANES)

    return _lanes(a_ij, types.intp, types.intp), code


@intrinsic
def _store_compiled(_, value, a_ij, i, j):
    def code(context, builder, signature, values):
        value, array, i, j = values
        place, *_ = _place(context, builder, signature.args[1], array, i, j)
        _write(builder, value, place)
        return context.get_dummy_value()

    return types.void(_lanes, a_ij, types.intp, types.intp), code


def _load(a_ij, i, j):
    """Lanes from a row of a matrix; in plain Python an array."""
    return a_ij[i, j : j + LANES].copy()


def _store(value, a_ij, i, j):
    """Lanes to a row of a matrix."""
    a_ij[i, j : j + LANES] = value


@overload(_load)
def _load_overload(a_ij, i, j):
    def compiled(a_ij, i, j):
        if _CHECKED:
            _check_block(a_ij, i, i + 1, j, j + LANES)
        return _load_compiled(a_ij, i, j)

    return compiled


@overload(_store)
def _store_overload(value, a_ij, i, j):
    def compiled(value, a_ij, i, j):
        if _CHECKED:
            _check_block(a_ij, i, i + 1, j, j + LANES)
        _store_compiled(value, a_ij, i, j)

    return compiled


@njit(cache=True, error_model="numpy", nogil=True)
def _channels(c_jamn, j, channel_mx):
    """Coefficients of one centre with the channels side by side."""
    n_max = c_jamn.shape[3]
    whole = n_max - n_max % LANES
    for a in range(c_jamn.shape[1]):
        c_mn = c_jamn[j, a]
        for m in range(c_jamn.shape[2]):
            for n in range(0, whole, LANES):
                _store(_load(c_mn, m, n), channel_mx, m, a * n_max + n)
            for n in range(whole, n_max):
                channel_mx[m, a * n_max + n] = c_mn[m, n]


@njit(cache=True, error_model="numpy", nogil=True)
def _product(first_mx, second_my, l, triangle, n_x, n_y, square_xy):
    """Sum over m of two sets of channels; with triangle only y >= x is wanted.

    Columns are taken eight at a time, and may end beyond the last by so many.
    """
    first_xm = first_mx.T
    for x in range(0, n_x, _ROWS):
        rows = min(_ROWS, n_x - x)
        for y in range(x if triangle else 0, n_y, 8):
            operands = (first_xm, x, second_my, y, l * l, (l + 1) * (l + 1))
            _add_tile(square_xy, x, y, rows, 8, *operands, True)


@njit(cache=True, error_model="numpy", nogil=True, forceinline=True)
def _write_rows(factor, square_xy, triangle, n_x, n_y, out_jf, j, f):
    """Write the rows of a product one after the other, with triangle from y = x.

    Lanes end beyond a row: the next one overwrites what stands there. Beyond the last
    there must be room.
    """
    for x in range(n_x):
        start = x if triangle else 0
        for y in range(start, n_y, LANES):
            _store(factor * _load(square_xy, x, y), out_jf, j, f + y - start)
        f += n_y - start


@njit(cache=True, error_model="numpy", nogil=True)
def power_spectrum(c_jamn, l_max, out_jf):
    """Power spectrum of a field with itself, each pair of channels once.

    Parameters
    ----------
    c_jamn : ndarray (n_centres, n_species, (l_max + 1)**2, n_max)
    l_max : int
    out_jf : ndarray (n_centres, (l_max + 1) * n_channels * (n_channels + 1) / 2)
        Written; features (l, x, y >= x), times √2 for x != y.
    """
    n_x = c_jamn.shape[1] * c_jamn.shape[3]
    n_f = n_x * (n_x + 1) // 2
    # Lanes may end beyond the last channel, and beyond the last feature.
    channel_mx = np.zeros((c_jamn.shape[2], n_x + LANES))
    square_xy = np.zeros((n_x, n_x + LANES))
    last_f = np.empty((1, n_f + LANES))
    for j in range(c_jamn.shape[0]):
        _channels(c_jamn, j, channel_mx)
        for l in range(l_max + 1):
            norm = 1.0 / math.sqrt(2 * l + 1)
            _product(channel_mx, channel_mx, l, True, n_x, n_x, square_xy)
            for x in range(n_x):
                square_xy[x, x] *= math.sqrt(0.5)
            rows = (math.sqrt(2.0) * norm, square_xy, True, n_x, n_x)
            if l < l_max and n_f >= LANES:
                _write_rows(*rows, out_jf, j, l * n_f)
            else:
                _write_rows(*rows, last_f, 0, 0)
                for f in range(n_f):
                    out_jf[j, l * n_f + f] = last_f[0, f]


@njit(cache=True, error_model="numpy", nogil=True)
def cross_spectrum(c_jamn, d_jamn, l_max, out_jf):
    """Power spectrum of two fields, features (l, x of the first, y of the second)."""
    n_x = c_jamn.shape[1] * c_jamn.shape[3]
    n_y = d_jamn.shape[1] * d_jamn.shape[3]
    n_f = n_x * n_y
    first_mx = np.zeros((c_jamn.shape[2], n_x))
    second_my = np.zeros((d_jamn.shape[2], -(-n_y // LANES) * LANES))
    square_xy = np.zeros((n_x, second_my.shape[1]))
    last_f = np.empty((1, n_f + LANES))
    for j in range(c_jamn.shape[0]):
        _channels(c_jamn, j, first_mx)
        _channels(d_jamn, j, second_my)
        for l in range(l_max + 1):
            norm = 1.0 / math.sqrt(2 * l + 1)
            _product(first_mx, second_my, l, False, n_x, n_y, square_xy)
            rows = (norm, square_xy, False, n_x, n_y)
            if l < l_max and n_f >= LANES:
                _write_rows(*rows, out_jf, j, l * n_f)
            else:
                _write_rows(*rows, last_f, 0, 0)
                for f in range(n_f):
                    out_jf[j, l * n_f + f] = last_f[0, f]


# Rows of one centre hold all components q side by side: each step of the innermost
# loop runs over n_q * n_y numbers instead of the few channels y.
@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def equivariant_spectrum(
    c_jamn, d_jamn, block_b, entry_e, value_e, n_components, out_jqf
):
    """Products of two fields, coupled to the components q of one angular momentum.

    Parameters
    ----------
    c_jamn : ndarray (n_centres, n_species, (l_max + 1)**2, n_max)
    d_jamn : ndarray (n_centres, n_species, (l_max + 1)**2, n_max)
    block_b : ndarray (n_blocks, 5) of int
        l of the first field; first and last + 1 of the entries; which pairs of
        channels are kept: 0 all, 1 those with y >= x, 2 those with y > x, of which
        the pairs of different channels take √2 in both cases; first feature.
    entry_e : ndarray (n_entries, 3) of int
        m of the first field, counted from l * l, m of the second, component.
    value_e : ndarray (n_entries,)
        Coupling coefficients.
    n_components : int
    out_jqf : ndarray (n_centres, n_components, n_features)
        Written.
    """
    n_x = c_jamn.shape[1] * c_jamn.shape[3]
    n_y = d_jamn.shape[1] * d_jamn.shape[3]
    width = n_components * n_y
    first_mx = np.empty((c_jamn.shape[2], n_x))
    second_my = np.empty((d_jamn.shape[2], n_y))
    most = 0
    for b in range(block_b.shape[0]):
        most = max(most, 2 * block_b[b, 0] + 1)
    coupled_mqy = np.empty((most, width))
    root = math.sqrt(2.0)
    row_qy = np.empty(width)
    for j in range(c_jamn.shape[0]):
        _channels(c_jamn, j, first_mx)
        _channels(d_jamn, j, second_my)
        for b in range(block_b.shape[0]):
            l = block_b[b, 0]
            fold = block_b[b, 3]
            start = block_b[b, 4]
            for m in range(2 * l + 1):
                coupled_mqy[m, :] = 0.0
            for e in range(block_b[b, 1], block_b[b, 2]):
                value = value_e[e]
                m, other = entry_e[e, 0], entry_e[e, 1]
                place = entry_e[e, 2] * n_y
                for y in range(n_y):
                    coupled_mqy[m, place + y] += value * second_my[other, y]
            for x in range(n_x):
                # An odd number of terms: the first, then two at a time.
                factor = first_mx[l * l, x]
                one_qy = coupled_mqy[0]
                for k in range(width):
                    row_qy[k] = factor * one_qy[k]
                for m in range(1, 2 * l + 1, 2):
                    factor = first_mx[l * l + m, x]
                    next_factor = first_mx[l * l + m + 1, x]
                    one_qy = coupled_mqy[m]
                    two_qy = coupled_mqy[m + 1]
                    for k in range(width):
                        row_qy[k] += factor * one_qy[k] + next_factor * two_qy[k]
                if fold == 0:
                    for q in range(n_components):
                        for y in range(n_y):
                            out_jqf[j, q, start + y] = row_qy[q * n_y + y]
                    start += n_y
                    continue
                n_kept = n_y - x - (fold - 1)
                for q in range(n_components):
                    end = (q + 1) * n_y - n_kept
                    for y in range(n_kept):
                        out_jqf[j, q, start + y] = root * row_qy[end + y]
                    if fold == 1:
                        out_jqf[j, q, start] = row_qy[end]
                start += n_kept
