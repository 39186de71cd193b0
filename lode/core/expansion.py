"""Compiled loops of :mod:`lode.expansion`: harmonics, pairs, plane waves.

Index legend: j centre, i neighbour, a species, p pair, l and m angular, n radial
function padded to whole vectors, c column (l, n), q radial mode, k wave vector.
Harmonics stand at l * l + l + m.
"""

import math
import operator
import platform
import threading
import time
from typing import NamedTuple

import numpy as np
from numba import config, njit, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, models, overload, register_model

# Numbers side by side in a register; LLVM cuts them to what the machine has.
LANES = 8
# Pairs of a centre that are worked on together: what belongs to them stays in the
# first-level cache. A multiple of the lanes.
_BATCH = 32
# Rows of a product whose sums stay in registers: measured for wide and narrow ones.
_FEATURES = config.CPU_FEATURES or get_host_cpu_features()
_ROWS = 8 if "+avx512f" in _FEATURES else 6
# Numba does not see what is read and written by pointers: these are checked here.
_CHECKED = bool(config.BOUNDSCHECK)
# Wave vectors, and centres, of which products are made at a time: the first factors
# stay in the first-level cache, the columns in the second-level one.
_WAVES = 128
_CENTERS = 32
# Centres of a periodic frame whose coefficients are worked on together.
CELL_CENTERS = 64
# Places of a post, where threads share work, each on a cache line of its own. How often
# work was handed out, and function and data of the last; who has the post; whether
# others may join, how many are there, whether one has failed; how many look for work.
_RUNG, _FUNCTION, _DATA = 0, 1, 2
_HELD, _OPEN, _JOINED, _FAILED, AWAKE = 8, 16, 24, 32, 40
# For the work: parts taken, of what all need made, whether neighbours are listed.
_TAKEN, _MADE, _LISTED = 48, 56, 64
N_PLACES = 72
# Fewer centres are not taken at a time.
_LEAST_PIECE = 4
# Tells a core that it only waits: instruction and argument.
_X86, _ARM = ("llvm.x86.sse2.pause", ()), ("llvm.aarch64.hint", (1,))
_PAUSES = {"x86_64": _X86, "AMD64": _X86, "arm64": _ARM, "aarch64": _ARM}
_PAUSE = _PAUSES.get(platform.machine())
_plain_lock = threading.Lock()


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


def _counter(context, builder, signature, array, i):
    """Pointer to a number that several threads change."""
    made = context.make_array(signature.args[0])(context, builder, array)
    return cgutils.get_item_pointer(context, builder, signature.args[0], made, [i])


@intrinsic
def _raised_compiled(_, counter_i, i, value):
    def code(context, builder, signature, values):
        array, i, value = values
        place = _counter(context, builder, signature, array, i)
        return builder.atomic_rmw("add", place, value, "seq_cst")

    return types.int64(counter_i, types.intp, types.int64), code


@intrinsic
def _seen_compiled(_, counter_i, i):
    def code(context, builder, signature, values):
        place = _counter(context, builder, signature, *values)
        if _PAUSE is not None:
            name, numbers = _PAUSE
            number = cgutils.ir.IntType(32)
            kind = cgutils.ir.FunctionType(
                cgutils.ir.VoidType(), [number] * len(numbers)
            )
            pause = cgutils.get_or_insert_function(builder.module, kind, name)
            builder.call(pause, [number(n) for n in numbers])
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(counter_i, types.intp), code


def _raised(counter_i, i, value):
    """Add to a number of several threads; what it was before."""
    with _plain_lock:
        before = counter_i[i]
        counter_i[i] += value
    return before


def _seen(counter_i, i):
    """A number of several threads, looked at by one that waits."""
    time.sleep(0.0)
    return counter_i[i]


@overload(_raised)
def _raised_overload(counter_i, i, value):
    return lambda counter_i, i, value: _raised_compiled(counter_i, i, value)


@overload(_seen)
def _seen_overload(counter_i, i):
    return lambda counter_i, i: _seen_compiled(counter_i, i)


@njit(cache=True, error_model="numpy", nogil=True)
def _hand_out(post, function, data):
    """Let others join in work, given by two addresses."""
    post[_FUNCTION], post[_DATA] = function, data
    _raised(post, _OPEN, 1)
    _raised(post, _RUNG, 1)


@njit(cache=True, error_model="numpy", nogil=True)
def _take_back(post, failed):
    """Wait until all who joined have left; whether one of them has failed."""
    if failed:
        _raised(post, _FAILED, 1)
    _raised(post, _OPEN, -1)
    while _seen(post, _JOINED) > 0:
        pass
    failed = _seen(post, _FAILED) > 0
    _raised(post, _HELD, -1)
    return failed


@intrinsic
def _shared_compiled(typing, function, arguments, post):
    inner = function.get_call_type(typing, tuple(arguments), {})

    def code(context, builder, signature, values):
        compiled = function.dispatcher.get_compile_result(inner)
        context.add_linking_libs(context.get_function(function, inner).libs)
        _, given, post_array = values
        # It stays until all have left.
        place = cgutils.alloca_once_value(builder, given)

        def call(builder, given):
            given = cgutils.unpack_tuple(builder, given)
            call = (builder, compiled.fndesc, inner, given)
            return context.call_internal_no_propagate(*call)[0]

        # What others call: without types, so that one function joins in any work.
        address = cgutils.ir.IntType(64)
        join = cgutils.ir.Function(
            builder.module,
            cgutils.ir.FunctionType(address, [cgutils.voidptr_t]),
            builder.module.get_unique_name("join." + compiled.fndesc.mangled_name),
        )
        join.linkage = "internal"
        inside = cgutils.ir.IRBuilder(join.append_basic_block())
        status = call(inside, inside.load(inside.bitcast(join.args[0], place.type)))
        inside.ret(inside.zext(status.is_error, address))

        def of_post(function, result, kinds, arguments):
            kinds = result(signature.args[2], *kinds)
            arguments = (post_array, *arguments)
            return context.compile_internal(builder, function.py_func, kinds, arguments)

        addresses = [builder.ptrtoint(p, address) for p in (join, place)]
        of_post(_hand_out, types.none, (types.int64, types.int64), addresses)
        status = call(builder, given)
        error = (status.is_error,)
        failed = of_post(_take_back, types.boolean, (types.boolean,), error)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return failed

    return types.boolean(function, arguments, post), code


@intrinsic
def _join_compiled(_, function, data):
    def code(context, builder, signature, values):
        address = cgutils.ir.IntType(64)
        kind = cgutils.ir.FunctionType(address, [cgutils.voidptr_t])
        join = builder.inttoptr(values[0], kind.as_pointer())
        return builder.call(join, [builder.inttoptr(values[1], cgutils.voidptr_t)])

    return types.int64(types.int64, types.int64), code


def _shared(function):
    """Function by which threads share the work of a compiled one.

    It takes the arguments as a tuple, and a post. The compiled one takes the post as
    its last argument: it finds zeros at the last places, to count what is taken and
    made, and whether a thread has failed.
    """

    def shared(arguments, post):
        function(*arguments, np.zeros(N_PLACES, dtype=np.int64))

    @overload(shared)
    def typed(arguments, post):
        def compiled(arguments, post):
            # Other work is handed out there: this is done by the caller alone.
            if _raised(post, _HELD, 1) > 0:
                _raised(post, _HELD, -1)
                post = np.zeros(N_PLACES, dtype=np.int64)
                _raised(post, _HELD, 1)
            post[_TAKEN] = post[_MADE] = post[_LISTED] = post[_FAILED] = 0
            if _shared_compiled(function, (*arguments, post), post):
                raise RuntimeError("a thread has failed that did a part of the work")

        return compiled

    return shared


def _join(function, data):
    """Do a part of the work at two addresses; whether that failed."""
    raise RuntimeError("nothing can be handed out in plain Python")


@overload(_join)
def _join_overload(function, data):
    return lambda function, data: _join_compiled(function, data)


@njit(cache=True, error_model="numpy", nogil=True)
def serve(post, looks):
    """Do a part of what is handed out, until nothing was for a number of looks.

    Parameters
    ----------
    post : ndarray (N_PLACES,) of int
    looks : int
    """
    _raised(post, AWAKE, 1)
    heard = -1
    left = looks
    while left > 0:
        rung = _seen(post, _RUNG)
        left -= 1
        if rung == heard:
            continue
        heard, left = rung, looks
        # In this order: who takes work back looks at both in the other.
        _raised(post, _JOINED, 1)
        if _seen(post, _OPEN) > 0 and _join(post[_FUNCTION], post[_DATA]):
            _raised(post, _FAILED, 1)
        _raised(post, _JOINED, -1)
    _raised(post, AWAKE, -1)


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
def _lane_harmonics(unit_xp, p, l_max, factors, y_mp):
    """As _harmonics, of the unit vectors from p on, as many as there are lanes."""
    x = _load(unit_xp, 0, p)
    y = _load(unit_xp, 1, p)
    z = _load(unit_xp, 2, p)
    zero = 0.0 * x
    cosine = zero + 1.0
    sine = zero
    for m in range(l_max + 1):
        before = zero
        value = zero + factors[0, m * m + 2 * m]
        # For m = 0 the cosine stands in the same place and is written last.
        _store(value * sine, y_mp, m * m, p)
        _store(value * cosine, y_mp, m * m + 2 * m, p)
        for l in range(m + 1, l_max + 1):
            at = l * l + l + m
            after = factors[0, at] * (z * value - factors[1, at] * before)
            before = value
            value = after
            _store(value * sine, y_mp, at - 2 * m, p)
            _store(value * cosine, y_mp, at, p)
        rotated = cosine * x - sine * y
        sine = sine * x + cosine * y
        cosine = rotated


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def _lane_horner(p_rc, r, t, f_pc, p):
    """As _horner, of the interval that begins in row r, to a row of a matrix."""
    n_c = f_pc.shape[1]
    for v in range(n_c // LANES):
        c = v * LANES
        high = _load(p_rc, r + 4, c) + t * (
            _load(p_rc, r + 5, c)
            + t * (_load(p_rc, r + 6, c) + t * _load(p_rc, r + 7, c))
        )
        low = _load(p_rc, r + 2, c) + t * (_load(p_rc, r + 3, c) + t * high)
        value = _load(p_rc, r, c) + t * (_load(p_rc, r + 1, c) + t * low)
        _store(value, f_pc, p, c)
    for c in range(n_c - n_c % LANES, n_c):
        high = p_rc[r + 4, c] + t * (
            p_rc[r + 5, c] + t * (p_rc[r + 6, c] + t * p_rc[r + 7, c])
        )
        low = p_rc[r + 2, c] + t * (p_rc[r + 3, c] + t * high)
        f_pc[p, c] = p_rc[r, c] + t * (p_rc[r + 1, c] + t * low)


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def _far_field(r, reach, tail, exponent, l_max, f_c):
    """Pair functions beyond the reach of the table."""
    u = (reach / r) ** 2
    for c in range(f_c.shape[0]):
        f_c[c] = 0.0
    for t in range(tail.shape[0] - 1, -1, -1):
        for c in range(f_c.shape[0]):
            f_c[c] = f_c[c] * u + tail[t, c]
    width = f_c.shape[0] // (l_max + 1)
    power = r**-exponent
    for l in range(l_max + 1):
        for c in range(l * width, (l + 1) * width):
            f_c[c] *= power
        power /= r


@njit(cache=True, error_model="numpy", nogil=True)
def _add_products(out_rn, first, y_mp, f_pc, l_max, start, stop):
    """Add the sum over some pairs of y_lm f_ln to rows from first on: one centre's."""
    width = out_rn.shape[1]
    for l in range(l_max + 1):
        m = l * l
        # As few tiles as hold all rows, of about the same size.
        for tiles in range(-(-(2 * l + 1) // _ROWS), 0, -1):
            rows = ((l + 1) * (l + 1) - m) // tiles
            for n in range(0, width, 8):
                columns = (min(8, width - n), y_mp, m, f_pc, l * width + n)
                _add_tile(out_rn, first + m, n, rows, *columns, start, stop, False)
            m += rows


@njit(cache=True, error_model="numpy", nogil=True)
def sorted_pairs(
    first_p, second_p, vector_px, limit, species_i, charge_i, n_atoms, n_species
):
    """Pairs of a half list in the order of the centre and its neighbour's species.

    Parameters
    ----------
    first_p, second_p : ndarray (n_pairs,) of int
        Two atoms that see each other.
    vector_px : ndarray (n_pairs, 3)
        From the first to the second.
    limit : float
        Pairs further apart are left out.
    species_i : ndarray (n_atoms,) of int
        Place of each atom's species.
    charge_i : ndarray (n_atoms,)
        What each atom's field is multiplied with; empty if all are one.
    n_atoms, n_species : int

    Returns
    -------
    start_ja : ndarray (n_atoms * n_species + 1,) of int
        Where the pairs of a centre and a species begin; they end where the next
        begin.
    sorted_px : ndarray (n, 3)
    charge_p : ndarray (n,)
        Of the neighbour; empty if all are one.
    """
    start_ja = np.zeros(n_atoms * n_species + 1, dtype=np.int64)
    for p in range(first_p.shape[0]):
        x, y, z = vector_px[p, 0], vector_px[p, 1], vector_px[p, 2]
        if x * x + y * y + z * z <= limit * limit:
            i, j = first_p[p], second_p[p]
            start_ja[i * n_species + species_i[j] + 1] += 1
            start_ja[j * n_species + species_i[i] + 1] += 1
    for s in range(n_atoms * n_species):
        start_ja[s + 1] += start_ja[s]
    place_ja = start_ja[:-1].copy()
    sorted_px = np.empty((start_ja[-1], 3))
    charged = charge_i.shape[0] > 0
    charge_p = np.empty(start_ja[-1] if charged else 0)
    for p in range(first_p.shape[0]):
        x, y, z = vector_px[p, 0], vector_px[p, 1], vector_px[p, 2]
        if x * x + y * y + z * z <= limit * limit:
            i, j = first_p[p], second_p[p]
            at = i * n_species + species_i[j]
            row = place_ja[at]
            place_ja[at] += 1
            sorted_px[row, 0], sorted_px[row, 1], sorted_px[row, 2] = x, y, z
            if charged:
                charge_p[row] = charge_i[j]
            at = j * n_species + species_i[i]
            row = place_ja[at]
            place_ja[at] += 1
            sorted_px[row, 0], sorted_px[row, 1], sorted_px[row, 2] = -x, -y, -z
            if charged:
                charge_p[row] = charge_i[i]
    return start_ja, sorted_px, charge_p


@njit(cache=True, error_model="numpy", nogil=True)
def all_pairs(
    position_ix,
    species_i,
    charge_i,
    n_species,
    start_i,
    stop_i,
    order_i,
    limit,
    low,
    high,
):
    """Every other atom of the same structure around the centres low ... high.

    Parameters
    ----------
    position_ix : ndarray (n_atoms, 3)
        Of structures one after the other.
    species_i, charge_i, n_species
        As of sorted_pairs.
    start_i, stop_i : ndarray (n_atoms,) of int
        First and last + 1 of the atoms of each atom's structure.
    order_i : ndarray (n_atoms,) of int
        Atoms of each structure in the order of their species.
    limit : float
        Pairs further apart are left out.
    low, high : int

    Returns
    -------
    start_ja, sorted_px, charge_p : ndarray
        As of sorted_pairs.
    """
    start_ja = np.empty((high - low) * n_species + 1, dtype=np.int64)
    most = 0
    for j in range(low, high):
        most += stop_i[j] - start_i[j] - 1
    sorted_px = np.empty((most, 3))
    charged = charge_i.shape[0] > 0
    charge_p = np.empty(most if charged else 0)
    p = 0
    for j in range(low, high):
        i = start_i[j]
        for a in range(n_species):
            start_ja[(j - low) * n_species + a] = p
            while i < stop_i[j] and species_i[order_i[i]] == a:
                other = order_i[i]
                i += 1
                # Who is not charged adds nothing.
                if other == j or (charged and charge_i[other] == 0.0):
                    continue
                x = position_ix[other, 0] - position_ix[j, 0]
                y = position_ix[other, 1] - position_ix[j, 1]
                z = position_ix[other, 2] - position_ix[j, 2]
                if x * x + y * y + z * z <= limit * limit:
                    sorted_px[p, 0], sorted_px[p, 1], sorted_px[p, 2] = x, y, z
                    if charged:
                        charge_p[p] = charge_i[other]
                    p += 1
    start_ja[-1] = p
    return start_ja, sorted_px[:p], charge_p[:p] if charged else charge_p


class Images(NamedTuple):
    """Atoms of a cell and their images, species by species.

    Attributes
    ----------
    image_xg : ndarray (3, at least n_images)
        In Å.
    start_a : ndarray (n_species + 1,) of int
        Where the images of a species begin; they end where the next begin.
    atom_g : ndarray (at least n_images,) of int
        What they are images of.
    home_i : ndarray (n_atoms,) of int
        Which of them is the atom itself, or -1.
    center_ix : ndarray (n_atoms, 3)
        Positions of the atoms, rounded as those of the images.
    charge_i : ndarray
        Of the atoms, as of sorted_pairs.
    limit : float
        Thickness of the shell of images; pairs further apart are left out.
    neighbors : float
        About how many each atom has, rather too many.
    key_g : ndarray (n_images,)
        What the images of a species are in the order of, see :func:`_in_layers`; empty
        if they are in none.
    place_ix : ndarray (n_atoms, 2)
        Places of the atoms across the layers and within them, if there are any.
    reach_x : ndarray (2,)
        The limit in both directions.
    """

    image_xg: np.ndarray
    start_a: np.ndarray
    atom_g: np.ndarray
    home_i: np.ndarray
    center_ix: np.ndarray
    charge_i: np.ndarray
    limit: float
    neighbors: float
    key_g: np.ndarray
    place_ix: np.ndarray
    reach_x: np.ndarray


class CellWaves(NamedTuple):
    """Wave vectors of a small cell and what belongs to them.

    Attributes
    ----------
    lattice : tuple
        reciprocal, columns and top, as of structure_factor.
    start_p : ndarray (n_parts + 1,) of int
        Where parts of the columns begin that are summed on their own.
    factors : tuple
        What wave_columns gives for all of them, or without any rows.
    field : tuple
        Weight of its Fourier transform; limit, smearing, table and step, as of
        write_cells.
    modes : tuple
        table, step, n_modes and l_max, as of wave_columns.
    expansion : tuple
        n_modes, expansion and l_max, as of add_modes.
    sums : tuple
        Room for even_sajc and odd_sajc (n_parts * n_blocks, n_species, centres of a
        block, n_columns): sums over each part around each block of centres.
    """

    lattice: tuple
    start_p: np.ndarray
    factors: tuple
    field: tuple
    modes: tuple
    expansion: tuple
    sums: tuple


@njit(cache=True, error_model="numpy", nogil=True)
def _margins(inverse, limit):
    """Thickness of a shell around a cell, as parts of its heights."""
    margin_x = np.empty(3)
    for x in range(3):
        square = inverse[0, x] ** 2 + inverse[1, x] ** 2 + inverse[2, x] ** 2
        # Just beyond the limit, lest rounding decides.
        margin_x[x] = limit * (1.0 + 1e-9) * math.sqrt(square)
    return margin_x


@njit(cache=True, error_model="numpy", nogil=True)
def _empty_images(n, volume, inverse, limit, charge_i, n_species):
    """Room for what cell_images gives."""
    margin_x = _margins(inverse, limit)
    most = n
    for x in range(3):
        most *= 2 * math.ceil(margin_x[x]) + 1
    neighbors = 1.2 * n / volume * 4.0 / 3.0 * math.pi * limit**3 + 1.0
    return Images(
        np.empty((3, most)),
        np.zeros(n_species + 1, dtype=np.int64),
        np.empty(most, dtype=np.int64),
        np.full(n, -1),
        np.empty((n, 3)),
        charge_i,
        limit,
        neighbors,
        np.empty(0),
        np.empty((0, 2)),
        np.empty(2),
    )


@njit(cache=True, error_model="numpy", nogil=True)
def _write_images(position_ix, cell, inverse, species_i, images):
    """Write what cell_images gives."""
    image_xg, start_a, atom_g, home_i, center_ix, charge_i, limit = images[:7]
    n = position_ix.shape[0]
    low, high = np.empty(3), np.empty(3)
    reach = np.empty(3, dtype=np.int64)
    margin_x = _margins(inverse, limit)
    for x in range(3):
        low[x], high[x] = -margin_x[x], 1.0 + margin_x[x]
        reach[x] = math.ceil(margin_x[x])
    fraction_ix = np.empty((n, 3))
    for i in range(n):
        for x in range(3):
            fraction_ix[i, x] = (
                position_ix[i, 0] * inverse[0, x]
                + position_ix[i, 1] * inverse[1, x]
                + position_ix[i, 2] * inverse[2, x]
            )
        for x in range(3):
            center_ix[i, x] = (
                fraction_ix[i, 0] * cell[0, x]
                + fraction_ix[i, 1] * cell[1, x]
                + fraction_ix[i, 2] * cell[2, x]
            )
    g = 0
    for a in range(start_a.shape[0] - 1):
        for i in range(n):
            if species_i[i] != a or (charge_i.shape[0] > 0 and charge_i[i] == 0.0):
                continue
            for h in range(-reach[0], reach[0] + 1):
                u = fraction_ix[i, 0] + h
                if not low[0] <= u <= high[0]:
                    continue
                for k in range(-reach[1], reach[1] + 1):
                    v = fraction_ix[i, 1] + k
                    if not low[1] <= v <= high[1]:
                        continue
                    for l in range(-reach[2], reach[2] + 1):
                        w = fraction_ix[i, 2] + l
                        if not low[2] <= w <= high[2]:
                            continue
                        if h == 0 and k == 0 and l == 0:
                            home_i[i] = g
                        for x in range(3):
                            image_xg[x, g] = (
                                u * cell[0, x] + v * cell[1, x] + w * cell[2, x]
                            )
                        atom_g[g] = i
                        g += 1
        start_a[a + 1] = g


@njit(cache=True, error_model="numpy", nogil=True)
def _places(position_xi, normal_x, margin, scale):
    """Places between two opposite faces of the shell, from 0 to the scale."""
    place_i = np.empty(position_xi.shape[1])
    # A little wider than the shell, so that all is within.
    scale /= (1.0 + 2.0 * margin) * (1.0 + 1e-9)
    for i in range(place_i.shape[0]):
        place = margin
        for x in range(3):
            place += position_xi[x, i] * normal_x[x]
        place_i[i] = max(0.0, place * scale)
    return place_i, margin * scale


@njit(cache=True, error_model="numpy", nogil=True)
def _in_layers(images, inverse):
    """Images of a species layer by layer, and in order within each layer.

    The layers are parallel to a face of the cell, half as thick as the limit; within
    one it goes from another face to that opposite. A key is the number of the layer
    and the place in it, from 0 to 1, so that a run of images is found by two keys.
    """
    n, n_images = images.center_ix.shape[0], images.start_a[-1]
    margin_x = _margins(inverse, images.limit)
    # The slack of the margins is more than the rounding of this many layers.
    scale_x = (np.floor(min(256.0, 2.0 / margin_x.min() + 4.0)), 1.0)
    place_ix, reach_x = np.empty((n, 2)), np.empty(2)
    place_xg = np.empty((2, n_images))
    # Where the cell is highest the least is looked at in vain.
    highest = np.argsort(margin_x)
    for x in range(2):
        axis = highest[x]
        face = inverse[:, axis], margin_x[axis], scale_x[x]
        place_ix[:, x], reach_x[x] = _places(images.center_ix.T, *face)
        place_xg[x], _ = _places(images.image_xg[:, :n_images], *face)
    key_g = np.floor(place_xg[0]) + place_xg[1]
    image_xg, atom_g = np.empty((3, n_images)), np.empty(n_images, dtype=np.int64)
    home_i = np.full(n, -1)
    for a in range(images.start_a.shape[0] - 1):
        begin, end = images.start_a[a], images.start_a[a + 1]
        order = begin + np.argsort(key_g[begin:end])
        key_g[begin:end] = key_g[order]
        for g in range(begin, end):
            old = order[g - begin]
            i = images.atom_g[old]
            atom_g[g] = i
            if images.home_i[i] == old:
                home_i[i] = g
            for x in range(3):
                image_xg[x, g] = images.image_xg[x, old]
    return Images(
        image_xg,
        images.start_a,
        atom_g,
        home_i,
        images.center_ix,
        images.charge_i,
        images.limit,
        images.neighbors,
        key_g,
        place_ix,
        reach_x,
    )


@njit(cache=True, error_model="numpy", nogil=True)
def _near_layers(images, j):
    """First and last of the layers in which images may be near a centre."""
    if images.key_g.shape[0] == 0:
        return 0, 0
    place, reach = images.place_ix[j, 0], images.reach_x[0]
    return math.floor(max(0.0, place - reach)), math.floor(place + reach)


@njit(cache=True, error_model="numpy", nogil=True)
def _run(images, j, a, layer):
    """First and last + 1 of the images of a species in a layer that may be near."""
    begin, end = images.start_a[a], images.start_a[a + 1]
    if images.key_g.shape[0] == 0:
        return begin, end
    key_g = images.key_g[begin:end]
    place, reach = images.place_ix[j, 1], images.reach_x[1]
    low = layer + max(0.0, place - reach)
    high = layer + min(1.0, place + reach)
    first = np.searchsorted(key_g, low)
    return begin + first, begin + first + np.searchsorted(key_g[first:], high)


@njit(cache=True, error_model="numpy", nogil=True)
def cell_images(
    position_ix, cell, inverse, volume, limit, species_i, charge_i, n_species
):
    """Atoms of a cell and their images in a shell around it, species by species.

    Parameters
    ----------
    position_ix : ndarray (n_atoms, 3)
        Wrapped into the cell.
    cell, inverse : ndarray (3, 3)
    volume : float
        Of the cell.
    limit : float
        Thickness of the shell.
    species_i, charge_i, n_species
        As of sorted_pairs; who has no charge has no images, as it adds nothing.

    Returns
    -------
    Images
    """
    n = position_ix.shape[0]
    images = _empty_images(n, volume, inverse, limit, charge_i, n_species)
    _write_images(position_ix, cell, inverse, species_i, images)
    return _in_layers(images, inverse)


@njit(cache=True, error_model="numpy", nogil=True)
def image_pairs(images, low, high):
    """Images within a limit of the centres low ... high.

    Parameters
    ----------
    images : Images
    low, high : int

    Returns
    -------
    start_ja, sorted_px, charge_p : ndarray
        As of sorted_pairs.
    """
    image_xg, start_a, atom_g, home_i = images[:4]
    center_ix, charge_i, limit, neighbors = images[4:8]
    n_species = start_a.shape[0] - 1
    square_g = np.empty(start_a[-1])
    near_p = np.empty(start_a[-1] + 1, dtype=np.uint64)
    start_ja = np.empty((high - low) * n_species + 1, dtype=np.int64)
    expected = math.ceil((high - low) * neighbors)
    sorted_px = np.empty((expected, 3))
    charged = charge_i.shape[0] > 0
    charge_p = np.empty(expected if charged else 0)
    count = 0
    for j in range(low, high):
        x_j, y_j, z_j = center_ix[j, 0], center_ix[j, 1], center_ix[j, 2]
        first_layer, last_layer = _near_layers(images, j)
        for a in range(n_species):
            start_ja[(j - low) * n_species + a] = count
            # Unsigned, as Numba would else test every index for its sign.
            n_near, one, zero = np.uint64(0), np.uint64(1), np.uint64(0)
            for layer in range(first_layer, last_layer + 1):
                begin, end = _run(images, j, a, layer)
                # Distances and choice in loops of their own: the first runs in vector
                # registers, the second has no branch that could be predicted wrongly.
                x, y, z = (
                    image_xg[0, begin:end],
                    image_xg[1, begin:end],
                    image_xg[2, begin:end],
                )
                square = square_g[begin:end]
                for g in range(end - begin):
                    square[g] = (
                        (x[g] - x_j) ** 2 + (y[g] - y_j) ** 2 + (z[g] - z_j) ** 2
                    )
                for g in range(end - begin):
                    near_p[n_near] = begin + g
                    n_near += one if square[g] <= limit * limit else zero
            if count + n_near > sorted_px.shape[0]:
                more = np.empty((2 * (count + n_near), 3))
                more[:count] = sorted_px[:count]
                sorted_px = more
                if charged:
                    more_charge_p = np.empty(more.shape[0])
                    more_charge_p[:count] = charge_p[:count]
                    charge_p = more_charge_p
            for p in range(n_near):
                g = near_p[p]
                if g == home_i[j]:
                    continue
                sorted_px[count, 0] = image_xg[0, g] - x_j
                sorted_px[count, 1] = image_xg[1, g] - y_j
                sorted_px[count, 2] = image_xg[2, g] - z_j
                if charged:
                    charge_p[count] = charge_i[atom_g[g]]
                count += 1
    start_ja[-1] = count
    return start_ja, sorted_px[:count], charge_p[: count if charged else 0]


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def add_pairs(
    start_ja,
    vector_px,
    charge_p,
    table,
    step,
    reach,
    tail,
    exponent,
    cutoff,
    cutoff_width,
    l_max,
    out_jamn,
):
    """Add f_nl(r) Y_lm of every pair to the coefficients.

    Pairs of a centre are taken in batches: harmonics with the pairs side by side,
    radial functions with the columns side by side, and of both the product, one for
    each species, whose sums stay in registers.

    Parameters
    ----------
    start_ja : ndarray (n_rows * n_species + 1,) of int
        Where the pairs of a centre and a species begin and the last ones end.
    vector_px : ndarray (n_pairs, 3)
        From centre to neighbour, within the cutoff and, without a tail, the reach.
    charge_p : ndarray (n_pairs,)
        What the neighbour's field is multiplied with; empty if all are one.
    table, step, reach, tail : PairTable
        Polynomials, their interval, the range, the far tail.
    exponent : float
        Of the far tail.
    cutoff, cutoff_width : float
        Shifted cosine over the last cutoff_width; infinite cutoff for none.
    l_max : int
    out_jamn : ndarray (n_rows, n_species, (l_max + 1)**2, width)
        Added to.
    """
    factors = harmonic_factors(l_max)
    n_species, n_lm = out_jamn.shape[1:3]
    # Matrices: a part of an array counts who refers to it, and of what all threads use
    # the count is a number that they all change.
    out_rn = out_jamn.reshape((-1, out_jamn.shape[3]))
    table_rc = table.reshape((-1, table.shape[2]))
    unit_xp = np.zeros((3, _BATCH))
    y_mp = np.empty(((l_max + 1) ** 2, _BATCH))
    f_pc = np.empty((_BATCH, table.shape[2]))
    r_p = np.empty(_BATCH)
    n_tail = tail.shape[0]
    charged = charge_p.shape[0] > 0
    for j in range(out_jamn.shape[0]):
        last = start_ja[(j + 1) * n_species]
        for low in range(start_ja[j * n_species], last, _BATCH):
            high = min(low + _BATCH, last)
            for p in range(high - low):
                x = vector_px[low + p, 0]
                y = vector_px[low + p, 1]
                z = vector_px[low + p, 2]
                r = math.sqrt(x * x + y * y + z * z)
                inverse = 1.0 / r if r > 0.0 else 0.0
                unit_xp[0, p] = inverse * x
                unit_xp[1, p] = inverse * y
                unit_xp[2, p] = inverse * z if r > 0.0 else 1.0
                r_p[p] = r
            # A loop of its own: with square roots in between it is half as fast.
            for p in range(high - low):
                r = r_p[p]
                if r < reach or n_tail == 0:
                    place = r / step
                    interval = min(int(place), table.shape[0] - 1)
                    t = 2.0 * (place - interval) - 1.0
                    _lane_horner(table_rc, 8 * interval, t, f_pc, p)
                else:
                    _far_field(r, reach, tail, exponent, l_max, f_pc[p])
                # A step has no width, and its last pairs may be rounded beyond it.
                if cutoff_width > 0.0 and r > cutoff - cutoff_width:
                    phase = math.pi * (r - cutoff + cutoff_width) / cutoff_width
                    smooth = 0.5 * (1.0 + math.cos(phase))
                    for c in range(f_pc.shape[1]):
                        f_pc[p, c] *= smooth
                if charged:
                    for c in range(f_pc.shape[1]):
                        f_pc[p, c] *= charge_p[low + p]
            for p in range(0, high - low, LANES):
                _lane_harmonics(unit_xp, p, l_max, factors, y_mp)
            for a in range(n_species):
                start = max(start_ja[j * n_species + a], low) - low
                stop = min(start_ja[j * n_species + a + 1], high) - low
                if start < stop:
                    row = (j * n_species + a) * n_lm
                    _add_products(out_rn, row, y_mp, f_pc, l_max, start, stop)


@njit(cache=True, error_model="numpy", nogil=True)
def add_all_pairs(pairs, settings, first, out_jamn):
    """Add what all_pairs finds around the centres from the first on.

    As of add_image_pairs, a single call: between two a thread may wait long for the
    lock of the interpreter.
    """
    found = all_pairs(*pairs, first, first + out_jamn.shape[0])
    add_pairs(*found, *settings, out_jamn)


@njit(cache=True, error_model="numpy", nogil=True)
def add_image_pairs(images, settings, first, out_jamn):
    """Add what image_pairs finds around the centres from the first on.

    Parameters
    ----------
    images : Images
    settings : tuple
        Of add_pairs, between the pairs and the coefficients.
    first : int
    out_jamn : ndarray (n_centres, n_species, (l_max + 1)**2, width)
        Added to.
    """
    found = image_pairs(images, first, first + out_jamn.shape[0])
    add_pairs(*found, *settings, out_jamn)


@njit(cache=True, error_model="numpy", nogil=True)
def add_constants(species_i, charge_i, own_n, background_an, first, out_jamn):
    """Add to l = 0 the field of each centre itself, and of all atoms on average.

    Parameters
    ----------
    species_i, charge_i
        As of sorted_pairs.
    own_n : ndarray (n_max,)
        Of an atom without a charge, or with that of one.
    background_an : ndarray (n_species, n_max)
        Of all atoms.
    first : int
        First of the centres.
    out_jamn : ndarray (n_centres, n_species, (l_max + 1)**2, width)
        Added to.
    """
    charged = charge_i.shape[0] > 0
    for j in range(out_jamn.shape[0]):
        own = charge_i[first + j] if charged else 1.0
        for n in range(own_n.shape[0]):
            out_jamn[j, species_i[first + j], 0, n] += own * own_n[n]
        for a in range(out_jamn.shape[1]):
            for n in range(own_n.shape[0]):
                out_jamn[j, a, 0, n] += background_an[a, n]


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
    """Cartesian wave vectors of the columns, (n_k, 3), and their lengths."""
    n_k = 0
    for c in range(columns.shape[0]):
        n_k += columns[c, 3]
    k_kx, length_k = np.empty((n_k, 3)), np.empty(n_k)
    at = 0
    for c in range(columns.shape[0]):
        for l in range(columns[c, 2], columns[c, 2] + columns[c, 3]):
            for x in range(3):
                k_kx[at, x] = (
                    columns[c, 0] * reciprocal[0, x]
                    + columns[c, 1] * reciprocal[1, x]
                    + l * reciprocal[2, x]
                )
            length_k[at] = math.sqrt(
                k_kx[at, 0] ** 2 + k_kx[at, 1] ** 2 + k_kx[at, 2] ** 2
            )
            at += 1
    return k_kx, length_k


@njit(cache=True, error_model="numpy", nogil=True)
def _sphere_columns(cell, reciprocal, limit):
    """Columns and top of wave_sphere."""
    top = np.empty(3, dtype=np.int64)
    for axis in range(3):
        # |k·a| <= |k| |a| bounds the index of a wave vector.
        x, y, z = cell[axis, 0], cell[axis, 1], cell[axis, 2]
        edge = math.sqrt(x * x + y * y + z * z)
        top[axis] = math.floor(edge * limit / (2.0 * math.pi) + 1e-6)
    return half_space(reciprocal, limit, top[0], top[1]), top


@njit(cache=True, error_model="numpy", nogil=True)
def wave_sphere(cell, reciprocal, limit):
    """Half of the wave vectors within a sphere.

    Parameters
    ----------
    cell, reciprocal : ndarray (3, 3)
        2π in the latter.
    limit : float
        Radius of the sphere.

    Returns
    -------
    columns : ndarray (n_columns, 4) of int
        Of half_space.
    top : ndarray (3,) of int
        Bounds of the indices.
    k_kx, length_k : ndarray
        Of wave_vectors.
    """
    columns, top = _sphere_columns(cell, reciprocal, limit)
    k_kx, length_k = wave_vectors(reciprocal, columns)
    return columns, top, k_kx, length_k


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
def axis_phases(position_jx, reciprocal, top):
    """Phases of atoms along each axis of reciprocal space.

    Parameters
    ----------
    position_jx : ndarray (n_atoms, 3)
    reciprocal : ndarray (3, 3)
    top : ndarray (3,) of int
        Bounds of the indices.

    Returns
    -------
    phase_jtn : ndarray (n_atoms, 6, at least 2 max(top) + 1)
        Real and imaginary parts of exp(i n b_x·r), two rows for each axis x; n from
        -top on.
    """
    # Beyond the phases nothing may stand that takes long to add.
    phase_jtn = np.zeros((position_jx.shape[0], 6, 2 * top.max() + 1 + LANES))
    for j in range(position_jx.shape[0]):
        for axis in range(3):
            angle = (
                reciprocal[axis, 0] * position_jx[j, 0]
                + reciprocal[axis, 1] * position_jx[j, 1]
                + reciprocal[axis, 2] * position_jx[j, 2]
            )
            real, imag = phase_jtn[j, 2 * axis], phase_jtn[j, 2 * axis + 1]
            _powers(angle, top[axis], real, imag)
    return phase_jtn


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def _wave_phases(phase_tn, top, columns, start, stop, phase_xk):
    """Write real and imaginary parts of exp(i k·r) for some columns of wave vectors.

    Whole lanes are read and written: rows are longer by LANES than what counts.
    """
    at = 0
    for c in range(start, stop):
        h = columns[c, 0] + top[0]
        k = columns[c, 1] + top[1]
        first = columns[c, 2] + top[2]
        re = phase_tn[0, h] * phase_tn[2, k] - phase_tn[1, h] * phase_tn[3, k]
        im = phase_tn[0, h] * phase_tn[3, k] + phase_tn[1, h] * phase_tn[2, k]
        for l in range(0, columns[c, 3], LANES):
            cosine = _load(phase_tn, 4, first + l)
            sine = _load(phase_tn, 5, first + l)
            _store(re * cosine - im * sine, phase_xk, 0, at + l)
            _store(re * sine + im * cosine, phase_xk, 1, at + l)
        at += columns[c, 3]


@njit(cache=True, error_model="numpy", nogil=True)
def _add_structure(phase_jtn, species_j, charge_j, columns, top, real_ak, imag_ak):
    """Add what structure_factor gives for some atoms."""
    n_k = real_ak.shape[1] - LANES
    phase_xk = np.zeros((2, n_k + LANES))
    charged = charge_j.shape[0] > 0
    for j in range(phase_jtn.shape[0]):
        _wave_phases(phase_jtn[j], top, columns, 0, columns.shape[0], phase_xk)
        charge = charge_j[j] if charged else 1.0
        a = species_j[j]
        for k in range(0, n_k, LANES):
            real = _load(real_ak, a, k) + charge * _load(phase_xk, 0, k)
            imag = _load(imag_ak, a, k) + charge * _load(phase_xk, 1, k)
            _store(real, real_ak, a, k)
            _store(imag, imag_ak, a, k)


@njit(cache=True, error_model="numpy", nogil=True)
def structure_factor(
    position_jx, species_j, charge_j, n_species, reciprocal, columns, top
):
    """Phases exp(i k·r_j), summed over the atoms of each species.

    Parameters
    ----------
    position_jx : ndarray (n_atoms, 3)
    species_j, charge_j, n_species
        As of sorted_pairs.
    reciprocal : ndarray (3, 3)
    columns, top : ndarray of int
        Of wave_sphere; perhaps a part of the columns.

    Returns
    -------
    real_ak, imag_ak : ndarray (n_species, n_k + LANES)
        The last LANES have no meaning.
    """
    n_k = columns[:, 3].sum()
    real_ak = np.zeros((n_species, n_k + LANES))
    imag_ak = np.zeros((n_species, n_k + LANES))
    for low in range(0, position_jx.shape[0], _CENTERS):
        part = slice(low, low + _CENTERS)
        phase_jtn = axis_phases(position_jx[part], reciprocal, top)
        atoms = (phase_jtn, species_j[part], charge_j[part])
        _add_structure(*atoms, columns, top, real_ak, imag_ak)
    return real_ak, imag_ak


@njit(cache=True, error_model="numpy", nogil=True)
def add_product(left_rk, right_kc, start, stop, first, rows, out_rc):
    """Add a product of matrices to some rows of another.

    out[first + r, c] += sum over k of left[r, k] right[start + k, c].

    Parameters
    ----------
    left_rk : ndarray (at least rows, at least stop - start)
    right_kc : ndarray (at least stop, at least n_columns)
    start, stop, first, rows : int
    out_rc : ndarray (at least first + rows, n_columns)
        n_columns a multiple of four.
    """
    n_columns = out_rc.shape[1]
    right = right_kc[start:stop]
    for c in range(0, n_columns, 8):
        width = min(8, n_columns - c)
        for r in range(0, rows, _ROWS):
            place = (first + r, c, min(_ROWS, rows - r), width)
            _add_tile(out_rc, *place, left_rk, r, right, c, 0, stop - start, False)


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def add_waves(
    phase_jtn,
    columns,
    top,
    real_ak,
    imag_ak,
    even_kc,
    odd_kc,
    even_ajc,
    odd_ajc,
):
    """Add the sums over wave vectors of a run of centres, before they are expanded.

    Some centres and wave vectors at a time: their phases times the conjugate of the
    structure factor, and the product of those with the columns, stay in the caches.

    Parameters
    ----------
    phase_jtn
        Of axis_phases.
    columns, top
        As of structure_factor.
    real_ak, imag_ak
        Of structure_factor.
    even_kc, odd_kc
        Of wave_columns.
    even_ajc, odd_ajc : ndarray (n_species, n_centres, n_columns)
        Added to; the numbers of columns are multiples of four.
    """
    n, n_species = phase_jtn.shape[0], real_ak.shape[0]
    most = _WAVES + columns[:, 3].max() + LANES
    phase_xk = np.zeros((2, most))
    even_ajk = np.empty((n_species, _CENTERS, most))
    odd_ajk = np.empty((n_species, _CENTERS, most))
    low = start = 0
    while low < columns.shape[0]:
        high, stop = low, start
        while high < columns.shape[0] and stop - start < _WAVES:
            stop += columns[high, 3]
            high += 1
        for row in range(0, n, _CENTERS):
            rows = min(_CENTERS, n - row)
            for j in range(rows):
                _wave_phases(phase_jtn[row + j], top, columns, low, high, phase_xk)
                for a in range(n_species):
                    even_jk, odd_jk = even_ajk[a], odd_ajk[a]
                    for k in range(0, stop - start, LANES):
                        real, imag = _load(phase_xk, 0, k), _load(phase_xk, 1, k)
                        real_k = _load(real_ak, a, start + k)
                        imag_k = _load(imag_ak, a, start + k)
                        _store(real * real_k + imag * imag_k, even_jk, j, k)
                        _store(imag * real_k - real * imag_k, odd_jk, j, k)
            for a in range(n_species):
                place = (start, stop, row, rows)
                add_product(even_ajk[a], even_kc, *place, even_ajc[a])
                add_product(odd_ajk[a], odd_kc, *place, odd_ajc[a])
        low, start = high, stop


@njit(cache=True, error_model="numpy", nogil=True)
def _column_counts(n_modes, l_max):
    """Numbers of columns (l, m, q) of even and of odd l, and in multiples of four."""
    n_even = n_odd = 0
    for l in range(l_max + 1):
        if l % 2 == 0:
            n_even += (2 * l + 1) * n_modes[l]
        else:
            n_odd += (2 * l + 1) * n_modes[l]
    return n_even, n_odd, -(-n_even // 4) * 4, -(-n_odd // 4) * 4


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def wave_columns(k_kx, weight_k, table, step, n_modes, l_max):
    """Columns weight × Y_lm(k) × mode_lq(|k|) of the matrix product.

    Parameters
    ----------
    k_kx : ndarray (n_k, 3)
        Wave vectors.
    weight_k : ndarray (n_k,)
        2 (4π/Ω) ĝ(k).
    table, step, n_modes : ModeTable
    l_max : int

    Returns
    -------
    even_kc, odd_kc : ndarray (n_k, n_columns + LANES)
        Columns (l, m, q) of even and of odd l, with the signs of 2 (-1)^(l/2) Re and
        2 (-1)^((l+1)/2) Im; rounded up to a multiple of four, and the last LANES have
        no meaning.
    """
    n_even, n_odd, even_width, odd_width = _column_counts(n_modes, l_max)
    even_kc = np.empty((k_kx.shape[0], even_width + LANES))
    odd_kc = np.empty((k_kx.shape[0], odd_width + LANES))
    # Nothing may stand there that takes long to multiply.
    even_kc[:, n_even:] = 0.0
    odd_kc[:, n_odd:] = 0.0
    factors = harmonic_factors(l_max)
    unit_xp = np.zeros((3, LANES))
    length_p = np.empty(LANES)
    y_mp = np.empty(((l_max + 1) ** 2, LANES))
    # Whole lanes are read and written; what they write too much is written again, or
    # is beyond the columns.
    u_pq = np.zeros((LANES, table.shape[2] + LANES))
    last = table.shape[0] - 1
    for low in range(0, k_kx.shape[0], LANES):
        count = min(LANES, k_kx.shape[0] - low)
        for p in range(count):
            x, y, z = k_kx[low + p, 0], k_kx[low + p, 1], k_kx[low + p, 2]
            length = math.sqrt(x * x + y * y + z * z)
            length_p[p] = length
            unit_xp[0, p] = x / length
            unit_xp[1, p] = y / length
            unit_xp[2, p] = z / length
        _lane_harmonics(unit_xp, 0, l_max, factors, y_mp)
        for p in range(count):
            place = length_p[p] / step
            interval = min(int(place), last)
            t = 2.0 * (place - interval) - 1.0
            _horner(table, interval, t, u_pq[p, : table.shape[2]])
            weight = weight_k[low + p]
            even = odd = mode = 0
            for l in range(l_max + 1):
                sign = weight if ((l + 1) // 2) % 2 == 0 else -weight
                n_q = n_modes[l]
                for m in range(2 * l + 1):
                    y = sign * y_mp[l * l + m, p]
                    for q in range(0, n_q, LANES):
                        u = _load(u_pq, p, mode + q)
                        if l % 2 == 0:
                            _store(y * u, even_kc, low + p, even + m * n_q + q)
                        else:
                            _store(y * u, odd_kc, low + p, odd + m * n_q + q)
                if l % 2 == 0:
                    even += (2 * l + 1) * n_q
                else:
                    odd += (2 * l + 1) * n_q
                mode += n_q
    return even_kc, odd_kc


@njit(cache=True, error_model="numpy", nogil=True)
def wave_factors(structure, columns):
    """What structure_factor and wave_columns give for their arguments, in one call."""
    return structure_factor(*structure), wave_columns(*columns)


@njit(cache=True, error_model="numpy", nogil=True)
def add_modes(even_ajc, odd_ajc, n_modes, expansion, l_max, out_jamn):
    """Expand radial modes into radial functions and add to the coefficients.

    Parameters
    ----------
    even_ajc, odd_ajc : ndarray (n_species, n_centres, n_columns)
        Columns (l, m, q) of even and of odd l.
    n_modes : ndarray (l_max + 1,) of int
        At least one of each l.
    expansion : ndarray (sum of n_modes, width)
    l_max : int
    out_jamn : ndarray (n_centres, n_species, (l_max + 1)**2, width)
        Added to.
    """
    width = out_jamn.shape[3]
    for j in range(out_jamn.shape[0]):
        for a in range(out_jamn.shape[1]):
            even = odd = mode = 0
            for l in range(l_max + 1):
                count = (2 * l + 1) * n_modes[l]
                if l % 2 == 0:
                    columns = even_ajc[a, j, even : even + count]
                    even += count
                else:
                    columns = odd_ajc[a, j, odd : odd + count]
                    odd += count
                value_mq = columns.reshape((2 * l + 1, n_modes[l]))
                stop = mode + n_modes[l]
                for m in range(0, 2 * l + 1, _ROWS):
                    rows = min(_ROWS, 2 * l + 1 - m)
                    for n in range(0, width, 8):
                        place = (l * l + m, n, rows, min(8, width - n))
                        modes = (expansion[mode:stop], n, 0, n_modes[l], False)
                        _add_tile(out_jamn[j, a], *place, value_mq, m, *modes)
                mode = stop


@njit(cache=True, error_model="numpy", nogil=True)
def add_expanded_waves(
    position_ix,
    reciprocal,
    columns,
    top,
    real_ak,
    imag_ak,
    even_kc,
    odd_kc,
    n_modes,
    expansion,
    l_max,
    first,
    out_jamn,
):
    """Add the sums over wave vectors around the centres from the first on.

    Parameters
    ----------
    position_ix : ndarray (n_atoms, 3)
    reciprocal, columns, top
        As of structure_factor.
    real_ak, imag_ak, even_kc, odd_kc
        As of add_waves.
    n_modes, expansion, l_max
        As of add_modes.
    first : int
    out_jamn : ndarray (n_centres, n_species, (l_max + 1)**2, width)
        Added to.
    """
    n, n_species = out_jamn.shape[:2]
    # Whole tiles, of which the columns are a part.
    n_even, n_odd = even_kc.shape[1] - LANES, odd_kc.shape[1] - LANES
    even_ajc = np.zeros((n_species, n, n_even))
    odd_ajc = np.zeros((n_species, n, n_odd))
    phase_jtn = axis_phases(position_ix[first : first + n], reciprocal, top)
    waves = (phase_jtn, columns, top, real_ak, imag_ak, even_kc, odd_kc)
    add_waves(*waves, even_ajc, odd_ajc)
    add_modes(even_ajc, odd_ajc, n_modes, expansion, l_max, out_jamn)


@njit(cache=True, error_model="numpy", nogil=True)
def _wave_weights(length_k, factor, limit, smearing, table, step):
    """Fourier transform of a field at wave numbers, times a factor."""
    weight_k, scaled_c = np.empty_like(length_k), np.empty(1)
    last = table.shape[0] - 1
    for k in range(length_k.shape[0]):
        length = length_k[k]
        place = math.log2(limit / length) / step
        interval = min(max(int(place), 0), last)
        _horner(table, interval, 2.0 * (place - interval) - 1.0, scaled_c)
        decay = math.exp(-0.5 * (length * smearing) ** 2)
        weight_k[k] = factor * scaled_c[0] * decay / (length * length)
    return weight_k


@njit(cache=True, error_model="numpy", nogil=True)
def _columns_of_part(reciprocal, columns, field, modes):
    """Of some wave vectors what wave_columns gives."""
    k_kx, length_k = wave_vectors(reciprocal, columns)
    return wave_columns(k_kx, _wave_weights(length_k, *field), *modes)


@njit(cache=True, error_model="numpy", nogil=True)
def _sum_waves(atoms, waves, first, n, s):
    """Sum over a part of the wave vectors around a block of the centres.

    Whoever does it makes all of the part, so that it stays in the caches of a core.
    """
    position, species, charge, n_species = atoms
    reciprocal, columns, top = waves.lattice
    even_ajc, odd_ajc = waves.sums[0][s], waves.sums[1][s]
    block, part = divmod(s, waves.start_p.shape[0] - 1)
    begin, end = waves.start_p[part], waves.start_p[part + 1]
    start = columns[:begin, 3].sum()
    stop = start + columns[begin:end, 3].sum()
    columns = columns[begin:end]
    phase_jtn = axis_phases(position, reciprocal, top)
    real_ak = np.zeros((n_species, stop - start + LANES))
    imag_ak = np.zeros_like(real_ak)
    _add_structure(phase_jtn, species, charge, columns, top, real_ak, imag_ak)
    even_kc, odd_kc = waves.factors
    if even_kc.shape[0] > 0:
        even_kc, odd_kc = even_kc[start:stop], odd_kc[start:stop]
    else:
        part_of = (reciprocal, columns, waves.field, waves.modes)
        even_kc, odd_kc = _columns_of_part(*part_of)
    even_ajc[:] = 0.0
    odd_ajc[:] = 0.0
    low = first + block * even_ajc.shape[1]
    high = min(first + n, low + even_ajc.shape[1])
    factors = (real_ak, imag_ak, even_kc, odd_kc)
    add_waves(phase_jtn[low:high], columns, top, *factors, even_ajc, odd_ajc)


@njit(cache=True, error_model="numpy", nogil=True)
def _add_sums(waves, start, out_jamn):
    """Add what all parts of the wave vectors give around centres from the start on."""
    n, n_species = out_jamn.shape[:2]
    n_parts = waves.start_p.shape[0] - 1
    even_sajc, odd_sajc = waves.sums
    even_ajc = np.zeros((n_species, n, even_sajc.shape[3]))
    odd_ajc = np.zeros((n_species, n, odd_sajc.shape[3]))
    for j in range(n):
        block, row = divmod(start + j, even_sajc.shape[2])
        for s in range(block * n_parts, (block + 1) * n_parts):
            for a in range(n_species):
                even_ajc[a, j] += even_sajc[s, a, row]
                odd_ajc[a, j] += odd_sajc[s, a, row]
    add_modes(even_ajc, odd_ajc, *waves.expansion, out_jamn)


@njit(cache=True, error_model="numpy", nogil=True)
def _write_pieces(
    atoms, pairs, lattice, waves, constants, first, n_threads, out_jamn, post
):
    """Write the coefficients around a run of the atoms of a small cell.

    Threads that call it with the same arguments share the work: one lists the images,
    others sum over parts of the wave vectors, all take pieces of the centres.

    Parameters
    ----------
    atoms : tuple
        position_ix, species_i, charge_i and n_species, as of structure_factor.
    pairs : tuple
        Images, still to be written, and settings of add_image_pairs.
    lattice : tuple
        The cell and its inverse.
    waves : CellWaves
    constants : tuple
        own_n and background_an of add_constants.
    first : int
        First of the centres.
    n_threads : int
    out_jamn : ndarray (n_centres, n_species, (l_max + 1)**2, width)
    post : ndarray (N_PLACES,) of int
    """
    position, species, charge, _ = atoms
    n, n_sums = out_jamn.shape[0], waves.sums[0].shape[0]
    start_p = pieces(n, n_threads, _LEAST_PIECE, CELL_CENTERS)
    images, _ = pairs
    task = _raised(post, _TAKEN, 1)
    if task == 0:
        if images.limit > 0.0:
            _write_images(position, *lattice, species, images)
        _raised(post, _LISTED, 1)
        task = _raised(post, _TAKEN, 1)
    while task <= n_sums:
        _sum_waves(atoms, waves, first, n, task - 1)
        _raised(post, _MADE, 1)
        task = _raised(post, _TAKEN, 1)
    piece = task - n_sums - 1
    while piece < start_p.shape[0] - 1:
        start, stop = start_p[piece], start_p[piece + 1]
        out = out_jamn[start:stop]
        out[:] = 0.0
        while not _seen(post, _LISTED):
            if _seen(post, _FAILED):
                return
        if images.limit > 0.0:
            add_image_pairs(*pairs, first + start, out)
        add_constants(species, charge, *constants, first + start, out)
        while _seen(post, _MADE) < n_sums:
            if _seen(post, _FAILED):
                return
        if n_sums > 0:
            _add_sums(waves, start, out)
        piece = _raised(post, _TAKEN, 1) - n_sums - 1


_share_pieces = _shared(_write_pieces)


@njit(cache=True, error_model="numpy", nogil=True)
def _wave_parts(columns):
    """Where parts of the columns begin that are summed on their own.

    They do not depend on the number of threads, as sums in another order differ.
    """
    n_k = columns[:, 3].sum()
    if n_k < _WAVES:
        return np.array([0, columns.shape[0]]) if n_k > 0 else np.zeros(1, np.int64)
    half = 0
    while 2 * columns[:half, 3].sum() < n_k:
        half += 1
    return np.array([0, half, columns.shape[0]])


@njit(cache=True, error_model="numpy", nogil=True)
def cell_columns(cell, inverse, volume, field):
    """What wave_columns gives for a small cell.

    Parameters
    ----------
    cell, inverse : ndarray (3, 3)
    volume : float
    field : tuple
        As of write_cells.
    """
    k_limit, smearing, fourier, fourier_step, table, step, n_modes, _, l_max = field
    reciprocal = np.ascontiguousarray(2.0 * math.pi * inverse.T)
    columns, _ = _sphere_columns(cell, reciprocal, k_limit)
    weight = 8.0 * math.pi / volume
    field_of = (weight, k_limit, smearing, fourier, fourier_step)
    modes_of = (table, step, n_modes, l_max)
    return _columns_of_part(reciprocal, columns, field_of, modes_of)


@njit(cache=True, error_model="numpy", nogil=True)
def write_cells(
    cells, atoms, pairs, field, constants, kept, n_threads, first, out_jamn, post
):
    """Write the coefficients around a run of the atoms of several small cells.

    Parameters
    ----------
    cells : tuple
        cell_fxy, inverse_fxy (n_cells, 3, 3), volume_f (n_cells,), start_f
        (n_cells + 1,) of int: where the atoms of a cell begin and the last ones end.
    atoms : tuple
        position_ix (n_atoms, 3), wrapped into the cells, and species_i, charge_i as
        of sorted_pairs; n_species.
    pairs : tuple
        Limit, zero without pairs, and the settings of add_image_pairs.
    field : tuple
        Of what is summed over waves: their limit, zero without waves; smearing;
        g(k) k² exp(k²s²/2) as polynomials of log2(limit / k) and their interval; table,
        step and n_modes of wave_columns; expansion of add_modes; l_max.
    constants : tuple
        own_n of add_constants; background_n (n_max,), average of one atom's field,
        times the volume.
    kept : tuple
        Of cell_columns for the first cell, or without any rows.
    n_threads : int
    first : int
        First of the centres.
    out_jamn : ndarray (n_centres, n_species, (l_max + 1)**2, width)
    post : ndarray (N_PLACES,) of int
        Where other threads may join.
    """
    cell_fxy, inverse_fxy, volume_f, start_f = cells
    position_ix, species_i, charge_i, n_species = atoms
    limit, settings = pairs
    k_limit, smearing, fourier, fourier_step = field[:4]
    table, step, n_modes, expansion, l_max = field[4:]
    own_n, background_n = constants
    _, _, even_width, odd_width = _column_counts(n_modes, l_max)
    factors = kept
    before = -1
    for f in range(start_f.shape[0] - 1):
        low = max(first, start_f[f])
        high = min(first + out_jamn.shape[0], start_f[f + 1])
        if low >= high:
            continue
        cell, inverse, volume = cell_fxy[f], inverse_fxy[f], volume_f[f]
        # Frames of a trajectory may share their cell.
        if before < 0 or (cell != cell_fxy[before]).any():
            reciprocal = np.ascontiguousarray(2.0 * math.pi * inverse.T)
            columns, top = _sphere_columns(cell, reciprocal, k_limit)
            part_p = _wave_parts(columns)
            if before >= 0:
                factors = kept[0][:0], kept[1][:0]
        elif factors[0].shape[0] == 0 and k_limit > 0.0:
            factors = cell_columns(cell, inverse, volume, field)
        before = f
        n_parts = part_p.shape[0] - 1
        n_blocks = -(-n_threads // max(1, n_parts))
        sums = (n_parts * n_blocks, n_species, -(-(high - low) // n_blocks))
        of_cell = slice(start_f[f], start_f[f + 1])
        position, species = position_ix[of_cell], species_i[of_cell]
        charge = charge_i[of_cell] if charge_i.shape[0] > 0 else charge_i
        n = position.shape[0]
        background_an = np.zeros((n_species, background_n.shape[0]))
        for i in range(n):
            share = charge[i] if charge.shape[0] > 0 else 1.0
            background_an[species[i]] += share / volume * background_n
        waves = CellWaves(
            (reciprocal, columns, top),
            part_p,
            factors,
            # The other half of the wave vectors doubles the weight.
            (8.0 * math.pi / volume, k_limit, smearing, fourier, fourier_step),
            (table, step, n_modes, l_max),
            (n_modes, expansion, l_max),
            (np.empty((*sums, even_width)), np.empty((*sums, odd_width))),
        )
        images = _empty_images(n, volume, inverse, limit, charge, n_species)
        arguments = (
            (position, species, charge, n_species),
            (images, settings),
            (cell, inverse),
            waves,
            (own_n, background_an),
            low - start_f[f],
            n_threads,
            out_jamn[low - first : high - first],
        )
        _share_pieces(arguments, post)


@njit(cache=True, error_model="numpy", nogil=True)
def write_cell(
    cell, atoms, pairs, field, constants, kept, n_threads, first, out_jamn, post
):
    """As write_cells, of one: cell is the cell, its inverse and its volume."""
    vectors, inverse, volume = cell
    cells = (
        vectors.reshape((1, 3, 3)),
        inverse.reshape((1, 3, 3)),
        np.full(1, volume),
        np.array([0, atoms[0].shape[0]]),
    )
    settings = (pairs, field, constants, kept)
    write_cells(cells, atoms, *settings, n_threads, first, out_jamn, post)


@njit(cache=True, error_model="numpy", nogil=True)
def pieces(n, n_threads, least, most):
    """Where the pieces of a run of centres begin that some threads share.

    Parameters
    ----------
    n, n_threads : int
    least, most : int
        Centres in a piece.

    Returns
    -------
    ndarray (n_pieces + 1,) of int
        With the end of the last. They become smaller, so that all end at a time.
    """
    start_p = np.zeros(n + 1, dtype=np.int64)
    count = 0
    while start_p[count] < n:
        left = n - start_p[count]
        size = left if n_threads == 1 else -(-left // (2 * n_threads))
        size = min(max(size, min(least, left)), most)
        start_p[count + 1] = start_p[count] + size
        count += 1
    return start_p[: count + 1]


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
