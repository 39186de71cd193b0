"""Compiled Monte Carlo of rigid molecules with one dispersion site each.

Energies in eV, lengths in Å. Index suffixes: ``m`` molecule, ``s`` site of a
molecule, whose first one carries the Lennard-Jones potential. All sites interact by
damped shifted force, so that energy and force vanish at the cutoff.
"""

import math

import numpy as np

from lode.core.compilation import compiled


@compiled
def pair_energy(first, second, charges_s, side, model):
    """Energy of two molecules, each pair of sites at its nearest image.

    Parameters
    ----------
    first, second : ndarray (n_sites, 3)
        Positions of the sites, in the cell or not.
    charges_s : ndarray (n_sites,)
        In units in which the product over the distance is an energy in eV.
    side : float
        Of the periodic cube.
    model : ndarray (5,)
        Depth in eV and diameter in Å of the Lennard-Jones potential, which is
        shifted to zero at the cutoff; the cutoff, at most half the side; the inverse
        length of the damping; the distance of two sites below which the energy is
        infinite, so that no charge falls into another one.

    Returns
    -------
    float
    """
    depth, diameter, cutoff, alpha, wall = model
    gauss = 2.0 * alpha / math.sqrt(math.pi)
    tail = math.erfc(alpha * cutoff) / cutoff
    slope = tail / cutoff + gauss * math.exp(-((alpha * cutoff) ** 2)) / cutoff
    energy = 0.0
    for s in range(first.shape[0]):
        for t in range(second.shape[0]):
            x = second[t, 0] - first[s, 0]
            y = second[t, 1] - first[s, 1]
            z = second[t, 2] - first[s, 2]
            x -= side * math.floor(x / side + 0.5)
            y -= side * math.floor(y / side + 0.5)
            z -= side * math.floor(z / side + 0.5)
            square = x * x + y * y + z * z
            if square >= cutoff * cutoff:
                continue
            if square < wall * wall:
                return math.inf
            r = math.sqrt(square)
            energy += (
                charges_s[s]
                * charges_s[t]
                * (math.erfc(alpha * r) / r - tail + slope * (r - cutoff))
            )
            if s == 0 and t == 0:
                six = (diameter * diameter / square) ** 3
                end = (diameter / cutoff) ** 6
                energy += 4.0 * depth * (six * six - six - end * end + end)
    return energy


@compiled
def pair_energies(positions_ms, charges_s, side, model):
    """Energies of all pairs of molecules.

    Parameters
    ----------
    positions_ms : ndarray (n, n_sites, 3)
    charges_s, side, model
        As in :func:`pair_energy`.

    Returns
    -------
    ndarray (n, n)
        Symmetric, zero on the diagonal.
    """
    n = positions_ms.shape[0]
    energies = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            energies[i, j] = pair_energy(
                positions_ms[i], positions_ms[j], charges_s, side, model
            )
            energies[j, i] = energies[i, j]
    return energies


@compiled
def moved(generator, molecule, turns, step, out):
    """A molecule moved at random; each move is as probable as its reverse.

    Parameters
    ----------
    generator : numpy.random.Generator
    molecule : ndarray (n_sites, 3)
    turns : bool
        Turn it around its first site by an angle up to ``step``, about an axis
        uniform on the sphere; else shift each coordinate by up to ``step``.
    step : float
        In radians or Å.
    out : ndarray (n_sites, 3)
        Receives the new positions.
    """
    if not turns:
        for x in range(3):
            shift = step * (2.0 * generator.random() - 1.0)
            for s in range(molecule.shape[0]):
                out[s, x] = molecule[s, x] + shift
        return
    n_z = 2.0 * generator.random() - 1.0
    around = 2.0 * math.pi * generator.random()
    n_x = math.sqrt(1.0 - n_z * n_z) * math.cos(around)
    n_y = math.sqrt(1.0 - n_z * n_z) * math.sin(around)
    angle = step * (2.0 * generator.random() - 1.0)
    c = math.cos(angle)
    v = math.sin(angle)
    for s in range(molecule.shape[0]):
        x = molecule[s, 0] - molecule[0, 0]
        y = molecule[s, 1] - molecule[0, 1]
        z = molecule[s, 2] - molecule[0, 2]
        # Rodrigues' formula
        along = (1.0 - c) * (n_x * x + n_y * y + n_z * z)
        out[s, 0] = molecule[0, 0] + c * x + v * (n_y * z - n_z * y) + along * n_x
        out[s, 1] = molecule[0, 1] + c * y + v * (n_z * x - n_x * z) + along * n_y
        out[s, 2] = molecule[0, 2] + c * z + v * (n_x * y - n_y * x) + along * n_z


@compiled
def sweeps(
    generator,
    positions_ms,
    energies,
    charges_s,
    side,
    model,
    temperature,
    steps,
    n_sweeps,
    accepted,
):
    """Metropolis moves, for each sweep as many shifts and as many turns as molecules.

    Molecule and kind of move are drawn at random, so that each single move keeps the
    detailed balance.

    Parameters
    ----------
    generator : numpy.random.Generator
    positions_ms : ndarray (n, n_sites, 3)
        Changed in place.
    energies : ndarray (n, n)
        From :func:`pair_energies`; changed in place.
    charges_s, side, model
        As in :func:`pair_energy`.
    temperature : float
        In eV.
    steps : ndarray (2,)
        Largest shift in Å, largest angle in radians.
    n_sweeps : int
    accepted : ndarray (2, 2) of int
        Accepted and tried shifts, in the first row, and turns are added.

    Returns
    -------
    float
        Sum of the changes of the energy, infinite pairs left out.
    """
    n = positions_ms.shape[0]
    trial = np.empty(positions_ms.shape[1:])
    row = np.zeros(n)
    change = 0.0
    for _ in range(2 * n * n_sweeps):
        m = min(int(n * generator.random()), n - 1)
        kind = 1 if generator.random() < 0.5 else 0
        moved(generator, positions_ms[m], kind == 1, steps[kind], trial)
        chance = generator.random()
        accepted[kind, 1] += 1
        # Pairs behind the wall are counted, as if it were of a finite height above
        # all other energies: a start with some of them finds its way out.
        difference = 0.0
        walls = 0
        for other in range(n):
            if other != m:
                row[other] = pair_energy(
                    trial, positions_ms[other], charges_s, side, model
                )
                if row[other] == math.inf:
                    walls += 1
                else:
                    difference += row[other]
                if energies[m, other] == math.inf:
                    walls -= 1
                else:
                    difference -= energies[m, other]
        if walls > 0:
            continue
        if (
            walls == 0
            and difference > 0.0
            and chance >= math.exp(-difference / temperature)
        ):
            continue
        accepted[kind, 0] += 1
        change += difference
        positions_ms[m] = trial
        for other in range(n):
            if other != m:
                energies[m, other] = row[other]
                energies[other, m] = row[other]
    return change
