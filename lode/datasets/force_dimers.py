"""Charged dimers with energies and forces along lines of growing distance."""

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from lode.charges import formal_charges
from lode.datasets.curves import displaced
from lode.datasets.dimers import separation
from lode.datasets.frames import read_frames
from lode.datasets.synthetic import synthetic_dimers


def read_force_dimers(path):
    """Published dimers with energies, forces and distances.

    Parameters
    ----------
    path : path_like
        Extended XYZ whose frames have an energy in eV, forces in eV/Å and, in ``info``,
        ``distance`` in Å.

    Returns
    -------
    list of ase.Atoms
        With formal charges as initial charges.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or a frame lacks one of these.
    """
    frames = read_frames(path)
    for i, frame in enumerate(frames):
        found = {} if frame.calc is None else frame.calc.results
        missing = [name for name in ("energy", "forces") if name not in found]
        if "distance" not in frame.info:
            missing.append("distance")
        if missing:
            raise ValueError(
                f"{path} must have an energy, forces and a distance in each frame, got "
                f"none for {', '.join(missing)} (frame {i})"
            )
        # The results are those of atoms with these charges.
        frame.set_initial_charges(formal_charges(frame))
        frame.calc = SinglePointCalculator(frame, **found)
    return frames


def synthetic_force_dimers(
    engine, molecules, *, n_dimers, n_points, step, displacement, seed
):
    """Random dimers of opposite charges, pulled apart, by a semi-empirical method.

    Parameters
    ----------
    engine : lode.datasets.engines.Mopac
        Of energies and forces.
    molecules : list of (str, ase.Atoms, int)
        As from :func:`lode.datasets.synthetic.monomers`.
    n_dimers, n_points : int
        How many, and at how many distances each.
    step : float
        From one distance to the next, in Å.
    displacement : float
        Standard deviation in Å of the atoms of each dimer about their molecules'
        minima, so that there are forces inside of them.
    seed : int

    Returns
    -------
    list of ase.Atoms
        As :func:`read_force_dimers` gives them, finite.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """
    if n_points < 1 or not step > 0.0:
        raise ValueError(
            f"n_points and step must be positive, got {n_points} and {step}"
        )
    generator, chosen, drawn = np.random.default_rng(seed), [], n_dimers
    while len(chosen) < n_dimers:
        drawn *= 2
        dimers = synthetic_dimers(drawn, molecules, seed=seed)
        chosen = [a for a in dimers if _opposite(a)][:n_dimers]
    frames = []
    for atoms in chosen:
        atoms.positions += generator.normal(0.0, displacement, (len(atoms), 3))
        nearest = separation(atoms)
        for i in range(n_points):
            frame = displaced(atoms, nearest + i * step, "training")
            charge = frame.info["charge_a"] + frame.info["charge_b"]
            energy, forces = engine.energy_and_forces(frame, charge)
            frame.set_initial_charges(formal_charges(frame))
            frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
            frames.append(frame)
    return frames


def _opposite(atoms):
    return atoms.info["charge_a"] * atoms.info["charge_b"] < 0
