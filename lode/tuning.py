"""Cost model: method and splitting width of the long-range half of a periodic frame.

Costs are estimates in microseconds on one core; only choices depend on them.
"""

import math
from functools import lru_cache

# For each 10^6 multiply-adds of a matrix product.
_PRODUCT = 37.0
# For each entry of its columns, and each phase of an atom with a channel.
_COLUMN = 0.0007
_PHASE = 0.0018
# Of a point of the fine grid for each doubling of its size, small and large; of a point
# of the kernel.
_FFT = 4.5e-4
_FFT_LARGE = 8e-4
_LARGE_GRID = 2e6
_KERNEL = 4.2e-4
# Edges of fine grids whose planes lie on the same lines of the cache: their Fourier
# transforms take two to five times as long as those of their neighbours.
_SLOW_SIZES = (48, 64, 128, 256, 512)
# Of a mode of a transform's grid, of an expanded value, of a call.
_GRID = 0.002
_EXPANSION = 0.02
_CALL = 30.0
# Of a neighbour in the list, and of its 392 coefficients.
_NEIGHBOR = 0.032
_COEFFICIENTS = 0.045
# Share of the tolerance that the transforms may use.
TRANSFORM_SHARE = 0.25
# Finest accuracy of finufft in double precision, and with little oversampling.
FINEST = 1e-14
_FINEST_LITTLE = 1e-8
# Sizes are rounded to 1/8 octave so that the chosen method can be cached.
_PER_OCTAVE = 8


def cheapest_method(expansion, n_atoms, n_channels, volume):
    """Method of the long-range half and splitting width of least estimated cost.

    Parameters
    ----------
    expansion : SphericalExpansion
    n_atoms, n_channels : int
    volume : float
        Of the cell in Å³.

    Returns
    -------
    method : {"products", "transforms"}
        "split" and "reciprocal" of the expansion mean products, "nufft" transforms,
        "auto" either.
    width : float
        In Å. Widths are on a fixed ladder, so that frames of like size share tables.
    """
    sizes = (round(_PER_OCTAVE * math.log2(size)) for size in (n_atoms, volume))
    return _cheapest_method(expansion, n_channels, *sizes)


@lru_cache(maxsize=4096)
def _cheapest_method(expansion, n_channels, *sizes):
    n_atoms, volume = (2 ** (size / _PER_OCTAVE) for size in sizes)
    smearing, method = expansion.field.smearing, expansion.method
    if method == "reciprocal":
        widths = [smearing]
    elif expansion.split is not None:
        widths = [expansion.split]
    else:
        widths = [0.5 * 2 ** (i / 4) for i in range(20)]
        widths = [w for w in widths if w > 1.15 * smearing] or [1.2 * smearing]
        if smearing > 0.0 and method == "auto":
            widths.insert(0, smearing)
    methods = {
        "auto": ("products", "transforms"),
        "nufft": ("transforms",),
    }.get(method, ("products",))
    choices = [(method, width) for width in widths for method in methods]
    if len(choices) == 1:
        return choices[0]

    def cost(choice):
        method, width = choice
        limit, n_columns = _reciprocal_size(expansion, width)
        sizes = (n_atoms, n_channels, n_columns, volume, limit)
        if method == "products":
            total = product_cost(*sizes)
        else:
            total = transform_cost(*sizes, expansion.tolerance)
        if width > smearing:
            total += _pair_cost(expansion, n_atoms, volume, width)
        return total

    return min(choices, key=cost)


def neighbor_count(n_atoms, volume, radius):
    """Atoms around one, on average."""
    return n_atoms / volume * 4 / 3 * math.pi * radius**3


def wave_vector_count(volume, limit):
    """About how many wave vectors half of a sphere has.

    Parameters
    ----------
    volume : float
        Of the cell in Å³.
    limit : float
        Largest wave number in 1/Å.

    Returns
    -------
    float
    """
    return volume * limit**3 / (12 * math.pi**2)


def product_cost(n_atoms, n_channels, n_columns, volume, limit):
    """Estimated cost of products of matrices.

    Parameters
    ----------
    n_atoms, n_channels : int
    n_columns : float
        Harmonics times radial modes.
    volume : float
        In Å³.
    limit : float
        Largest wave number in 1/Å.

    Returns
    -------
    float
    """
    n_k = wave_vector_count(volume, limit)
    product = n_k * n_atoms * n_channels * n_columns
    total = _PRODUCT * 1e-6 * product + _COLUMN * n_k * n_columns
    return total + _PHASE * n_k * n_atoms * n_channels


def transform_cost(n_atoms, n_channels, n_columns, volume, limit, tolerance):
    """Estimated cost of non-uniform Fourier transforms, see :func:`product_cost`."""
    top = math.floor(volume ** (1 / 3) * limit / (2 * math.pi))
    # The norm of what is transformed is a few times the scale.
    accuracy = max(0.3 * TRANSFORM_SHARE * tolerance, FINEST)
    _, each, _ = transform_sizes((top, top, top), accuracy, n_atoms)
    each += _GRID * (2 * top + 1) ** 3 + _EXPANSION * n_atoms
    return (0.5 * n_channels * n_columns + 4.0) * (each + _CALL)


def transform_sizes(top, accuracy, n_targets):
    """Grid of the fastest transform.

    Parameters
    ----------
    top : sequence (3,) of int
        Largest indices of the wave vectors.
    accuracy : float
        Relative.
    n_targets : int

    Returns
    -------
    sizes : tuple of int
        Odd.
    cost : float
        Of one transform.
    upsampling : float
    """
    digits = -math.log10(accuracy)
    choices = []
    for upsampling in (2.0, 1.25):
        if upsampling < 2.0 and accuracy < _FINEST_LITTLE:
            continue
        # Width of the kernel, as finufft takes it.
        if upsampling == 2.0:
            width = math.ceil(digits) + 1
        else:
            decay = math.pi * math.sqrt(1 - 1 / upsampling) / math.log(10.0)
            width = math.ceil(digits / decay) + 1
        pairs = [_padded_size(2 * int(t) + 1, upsampling, width) for t in top]
        points = math.prod(fine for _, fine in pairs)
        each = _FFT if points < _LARGE_GRID else _FFT_LARGE
        cost = each * points * math.log2(points) + _KERNEL * n_targets * width**3
        choices.append((cost, tuple(size for size, _ in pairs), upsampling))
    cost, sizes, upsampling = min(choices)
    return sizes, cost, upsampling


@lru_cache(maxsize=256)
def _padded_size(size, upsampling, width):
    """Odd size from this one on with the fastest fine grid, and the size of that."""
    choices = [(n, _fine_size(n, upsampling, width)) for n in range(size, size + 16, 2)]
    return min(choices, key=lambda c: c[1] * (1.5 if c[1] in _SLOW_SIZES else 1.0))


def _fine_size(size, upsampling, width):
    """Points of finufft's fine grid: the next even product of 2, 3 and 5."""
    n = max(math.ceil(upsampling * size), 2 * width)
    n += n % 2
    while True:
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 2


def _reciprocal_size(expansion, width):
    """Largest wave number and number of columns; fitted to those of GTOs."""
    digits = math.sqrt(2.0 * math.log(1.0 / expansion.tolerance))
    cutoff = expansion.basis.cutoff
    rank = 0.036 * digits**2 / math.log(10.0) - 0.17 + 0.22 * cutoff / width
    n_coefficients = (expansion.max_angular + 1) ** 2 * expansion.basis.max_radial
    return digits / width, n_coefficients * min(1.0, max(0.1, rank))


def _pair_cost(expansion, n_atoms, volume, width):
    """Estimated cost of the short-range half."""
    basis = expansion.basis
    digits = math.sqrt(2.0 * math.log(1.0 / expansion.tolerance))
    # Fitted to the range of GTOs.
    radius = basis.extent if basis.compact else 0.4 * basis.extent
    neighbors = neighbor_count(n_atoms, volume, radius + digits * width)
    share = (expansion.max_angular + 1) ** 2 * basis.max_radial / 392
    return n_atoms * neighbors * (_NEIGHBOR + _COEFFICIENTS * share)
