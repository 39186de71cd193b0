"""Which neighbours a centre has, and their term of the expansion.

Pairs are found among all atoms of finite structures and among the images of periodic
cells where few are tested for each pair; else they come from vesin's list.
"""

import math
from dataclasses import replace

import numpy as np
import vesin

from lode.core import neighbors as core
from lode.core.pairs import add_pair_gradients, add_pairs
from lode.gradients import add_blocks
from lode.tuning import neighbor_count

# Finite structures with at most this many atoms: each pair is tested.
_SMALL = 256
# With at most so many images for each pair found, beside so many for each centre,
# testing all is faster than vesin's list. Measured for gas, water and oxide.
_TESTS = 60
_TESTS_ALONE = 2000
# Pairs that are listed at a time, and centres.
_PAIR_BLOCK = 2_000_000
_CENTERS = 64


class PairTerm:
    """Sum over pairs within a limit.

    Parameters
    ----------
    system : System
    sources : Sources
    table : PairTable
    max_angular : int
    all_sources : bool
        Whether atoms without a weight are among the neighbours.
    """

    def __init__(self, system, sources, table, max_angular, all_sources=False):
        self.sources, self.max_angular = sources, max_angular
        if all_sources:
            ones = np.ones_like(sources.weight_i)
            sources = replace(sources, weight_i=ones)
        self.radial = table.radial
        self.listed, self.candidates = None, None
        largest, limit = max(system.sizes, default=len(system)), table.limit
        # How many centres are best taken at a time; a call costs as much as some.
        self.block = _CENTERS if len(system) >= 2 * _CENTERS else len(system)
        if system.finite and (math.isinf(limit) or largest <= _SMALL):
            self.candidates = _finite_candidates(system, sources, limit)
        elif not system.finite and _images_are_few(system, limit):
            self.candidates = _images(system, sources, limit)
        else:
            self.listed = _listed_pairs(system, sources, limit)
        if self.candidates is not None:
            most = _PAIR_BLOCK / self.candidates.expected
            self.block = max(1, min(self.block, int(most)))

    def pairs(self, first, stop):
        """Pairs of a run of centres, as :class:`lode.core.neighbors.Pairs`."""
        if self.candidates is not None:
            return core.near_pairs(self.candidates, first, stop)
        n_channels = self.sources.n_channels
        start_ja = self.listed.start_ja[first * n_channels : stop * n_channels + 1]
        return self.listed._replace(start_ja=start_ja)

    def add(self, out_jamn, first):
        """Add to the coefficients of a run of centres.

        Parameters
        ----------
        out_jamn : ndarray (n_centres, n_channels, (l_max + 1)**2, width)
        first : int
            Place of the first centre.
        """
        found = self.pairs(first, first + len(out_jamn))
        weight_i = self.sources.weight_i
        add_pairs(found, weight_i, self.radial, self.max_angular, out_jamn)

    def adjoint(self, gradient_sjamn, sums, strained, n_threads):
        """Add what gradients of all coefficients are for positions and strain.

        Parameters
        ----------
        gradient_sjamn : ndarray (n_scalars, n_atoms, n_channels, n_lm, width)
        sums : Sums
            Added to.
        strained : bool
            Whether the strain is wanted; it costs nothing.
        n_threads : int
        """
        n = gradient_sjamn.shape[1]

        def add(first, own):
            some = np.ascontiguousarray(gradient_sjamn[:, first : first + self.block])
            found = self.pairs(first, first + some.shape[1])
            settings = self.sources.weight_i, self.radial, self.max_angular
            add_pair_gradients(found, *settings, first, some, *own)

        add_blocks(add, sums, range(0, n, self.block), n_threads)


def _finite_candidates(system, sources, limit):
    """All atoms of one or several finite structures, by structure and channel."""
    sizes = np.array(system.sizes or [len(system)])
    n, n_channels = len(system), sources.n_channels
    structure_i = np.repeat(np.arange(len(sizes)), sizes)
    group_i = structure_i * n_channels + sources.channel_i
    order_g = np.argsort(group_i, kind="stable")
    order_g = order_g[sources.weight_i[order_g] != 0.0]
    start = np.searchsorted(group_i[order_g], np.arange(len(sizes) * n_channels + 1))
    channels = np.arange(n_channels + 1)
    return core.Candidates(
        position_xg=np.ascontiguousarray(system.positions[order_g].T),
        key_g=np.zeros(len(order_g)),
        atom_g=order_g,
        start_sa=start[np.arange(len(sizes))[:, None] * n_channels + channels],
        center_ix=system.positions,
        center_key_i=np.zeros(n),
        structure_i=structure_i,
        key_limit=1.0,
        limit=limit,
        expected=float(sizes.max()),
    )


def _images_are_few(system, limit):
    """Whether testing all images is faster than a list of pairs."""
    if len(system) <= _SMALL:
        return True
    margin_x = [limit / height for height in system.heights]
    along = 2.0 * min(margin_x)
    axes = zip(margin_x, system.pbc, strict=True)
    shell = math.prod(1.0 + 2.0 * margin for margin, is_period in axes if is_period)
    n_tests = len(system) * shell * min(1.0, along / (1.0 + along))
    neighbors = _neighbors(system, limit)
    return n_tests < _TESTS_ALONE + _TESTS * neighbors


def _neighbors(system, limit):
    """Atoms around one, on average."""
    volume = system.volume
    for height, is_period in zip(system.heights, system.pbc, strict=True):
        # Half of what is near an atom at the surface of a slab lies in vacuum.
        volume *= 1.0 if is_period else 1.0 + limit / height
    return neighbor_count(len(system), volume, limit)


def _images(system, sources, limit):
    """Atoms of a cell and their images, in order along its highest direction."""
    axis = system.heights.index(max(system.heights))
    fraction_ix = system.positions @ system.inverse
    order_i = np.argsort(fraction_ix[:, axis])
    # 20 % more than the mean, so that arrays rarely have to grow.
    expected = 1.2 * _neighbors(system, limit) + 1.0
    lattice = system.cell, system.inverse, system.pbc, limit
    atoms = _atoms(sources)
    places = system.positions, fraction_ix, order_i
    return core.images(*places, lattice, atoms, axis, expected)


def _atoms(sources):
    return sources.channel_i, sources.weight_i, sources.n_channels


def _listed_pairs(system, sources, limit):
    """Pairs from a cell list."""
    neighbors = vesin.NeighborList(cutoff=limit, full_list=True, n_threads=1)
    # Not copied: valid as long as the list, and sorted_pairs copies.
    first, second, vector = neighbors.compute(
        system.positions, system.cell, system.pbc, "ijD", copy=False
    )
    pairs = (first.view(np.int64), second.view(np.int64), vector)
    return core.sorted_pairs(*pairs, limit, _atoms(sources), len(system))
