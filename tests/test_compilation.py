import os
import subprocess
import sys
import time
from pathlib import Path

import numba
import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lode"

pytestmark = pytest.mark.skipif(
    numba.config.DISABLE_JIT, reason="nothing is compiled in plain Python"
)


@pytest.fixture
def copy(tmp_path):
    """Folder of a copy of the core, and of nothing else of the package."""
    folder = tmp_path / "lode"
    (folder / "core").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    for path in (PACKAGE / "core").glob("*.py"):
        (folder / "core" / path.name).write_text(path.read_text())
    return tmp_path


def run(folder, program, **environment):
    """Output of a program that finds the package in a folder."""
    inherited = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**inherited, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )


# Two functions, the second of which is asked whether it was in the cache.
FACTORS = """
from lode.core.harmonics import harmonic_factors, harmonics
import numpy as np
print(harmonic_factors(1)[0, 0], harmonics(np.eye(3), 0)[0, 0])
print(sum(harmonics.stats.cache_hits.values()))
"""


def test_an_edit_of_a_core_file_compiles_what_depends_on_it(copy):
    # Numba knows nothing of the file that the other calls into.
    caller = copy / "lode" / "core" / "caller.py"
    caller.write_text(
        "from lode.core.compilation import compiled\n"
        "from lode.core.callee import number\n\n"
        "@compiled\ndef twice():\n    return 2 * number()\n"
    )
    callee = copy / "lode" / "core" / "callee.py"
    source = "from lode.core.compilation import compiled\n\n\n@compiled\n"
    callee.write_text(source + "def number():\n    return 21\n")
    program = (
        "from lode.core.caller import twice\n"
        "print(twice(), sum(twice.stats.cache_hits.values()))"
    )
    assert run(copy, program).stdout.split() == ["42", "0"]
    assert run(copy, program).stdout.split() == ["42", "1"]
    stamp = callee.stat().st_mtime
    callee.write_text(source + "def number():\n    return 12\n")
    os.utime(callee, (stamp, stamp))
    assert run(copy, program).stdout.split() == ["24", "0"]


def test_what_is_compiled_is_kept_beside_the_core(copy):
    first = run(copy, FACTORS)
    again = run(copy, FACTORS)
    assert first.stdout.splitlines()[0] == again.stdout.splitlines()[0]
    assert first.stdout.splitlines()[1] == "0"
    assert again.stdout.splitlines()[1] == "1"
    (folder,) = (copy / "lode" / "core" / "__pycache__").glob("lode-*")
    assert list(folder.rglob("*.nbi"))


def test_a_long_compilation_is_announced_once(copy):
    first, again = run(copy, FACTORS).stderr, run(copy, FACTORS).stderr
    assert first.count("lode: compiling") == 1
    assert "lode-" in first
    assert again == ""


def test_functions_of_others_are_not_announced(copy):
    # One without a module too, as exec makes it.
    program = (
        "import numba, lode.core.harmonics\n"
        "names = {'__builtins__': __builtins__}\n"
        "exec('def f(x): return x + 1', names)\n"
        "print(numba.njit(names['f'])(1), names['f'].__module__)"
    )
    done = run(copy, program)
    assert done.stdout.split() == ["2", "None"]
    assert done.stderr == ""


def test_the_folder_can_be_chosen(copy, tmp_path):
    chosen = tmp_path / "chosen"
    run(copy, FACTORS, NUMBA_CACHE_DIR=str(chosen))
    assert list(chosen.rglob("*.nbi"))
    assert not list((copy / "lode" / "core").rglob("*.nbi"))


def test_checked_bounds_are_kept_apart(copy):
    for value in ("0", "1"):
        run(copy, FACTORS, NUMBA_BOUNDSCHECK=value)
    assert len(list((copy / "lode" / "core" / "__pycache__").glob("lode-*"))) == 2


def test_without_a_folder_that_can_be_written_all_is_computed_with_a_warning(copy):
    # A file where the folder would be: nobody can write there, not even root.
    (copy / "lode" / "core" / "__pycache__").write_text("")
    home = {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none"}
    for environment in (home, {"NUMBA_CACHE_DIR": "/proc/none"}):
        done = run(copy, FACTORS, PYTHONDONTWRITEBYTECODE="1", **environment)
        assert done.stdout.splitlines()[1] == "0"
        assert done.stderr.count("RuntimeWarning") == 1
        assert "set NUMBA_CACHE_DIR to a folder that can" in done.stderr
        assert "compiling" not in done.stderr


def test_nothing_is_changed_for_other_packages(copy):
    program = (
        "import numba; before = numba.config.CACHE_DIR\n"
        "import lode.core.harmonics\n"
        "assert numba.config.CACHE_DIR == before\n"
        "import other; other.f(); print(other.f.stats.cache_path)"
    )
    other = copy / "other.py"
    other.write_text(
        "import numba\n\n@numba.njit(cache=True)\ndef f():\n    return 1\n"
    )
    assert run(copy, program).stdout.split() == [str(copy / "__pycache__")]


def test_caches_that_nobody_used_for_long_are_deleted(copy, tmp_path):
    place = copy / "lode" / "core" / "__pycache__"
    old, recent = place / f"lode-{16 * '0'}", place / f"lode-{16 * '1'}"
    # Of somebody else, and already gone: a link to nothing.
    other, gone = place / "lode-paper", place / f"lode-{16 * '2'}"
    for folder, days in ((old, 31), (recent, 29), (other, 90)):
        folder.mkdir(parents=True)
        stamp = time.time() - days * 86400
        os.utime(folder, (stamp, stamp))
    gone.symlink_to(tmp_path / "nowhere")
    run(copy, FACTORS)
    assert not old.exists()
    assert recent.exists()
    assert other.exists()


# Everything that is compiled, once: hashes of what it gives.
BITS = """
import hashlib
import numpy as np
import lode
from ase import Atoms
from lode.datasets.gas import gas_frames
from lode.datasets.water import synthetic_boxes
from lode.dipoles import dipole_tensor

rng = np.random.default_rng(1)
cell = np.array([[9.0, 0, 0], [1.0, 8.0, 0], [0.5, -2.0, 10.0]])
salt = Atoms("Na32Cl32", rng.random((64, 3)) @ cell, cell=cell, pbc=True)
salt.set_initial_charges([1.0] * 32 + [-1.0] * 32)
molecule = salt[::7]
molecule.pbc = False

def show(name, *arrays):
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    print(name, digest.hexdigest()[:16])

for atoms in (salt, molecule):
    found = lode.ewald(atoms)
    stress = 0.0 if found.stress is None else found.stress
    show("ewald", found.energy, found.potential, found.forces, stress)
    show("energies", lode.ewald_energies([atoms]))
    for n, l in ((3, 2), (8, 6)):
        basis = lode.RadialBasis.gto(n, 3.0)
        rho = lode.SphericalExpansion(lode.GaussianDensity(0.4), basis, l)
        show("density", rho.compute(atoms).values)
        V = {
            method: lode.SphericalExpansion(
                lode.PowerLawPotential(1, 1.0), basis, l, method=method
            )
            for method in ("split", "reciprocal", "nufft")
        }
        for method, expansion in V.items():
            show(method, expansion.compute(atoms).values)
        for descriptor in (
            lode.RadialSpectrum(V["split"]),
            lode.PowerSpectrum(rho),
            lode.PowerSpectrum(rho, V["split"]),
            lode.EquivariantPowerSpectrum(rho, V["split"], angular=2),
        ):
            show(type(descriptor).__name__, descriptor.compute(atoms).values)
for atoms in gas_frames(2, n_pairs=4, seed=0):
    show("gas", atoms.positions)
show("dipoles", dipole_tensor(salt.positions, cell, np.full(64, 0.5)))
for atoms in synthetic_boxes(2, n_sweeps=2, n_burn_in=5, seed=0):
    show("water", atoms.positions)
"""


@pytest.mark.slow
def test_compiled_here_or_read_from_the_cache_gives_the_same_bits(tmp_path):
    package = {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, *others = (run(PACKAGE.parent, BITS, **package).stdout for _ in range(3))
    assert len(first.splitlines()) > 30
    assert [other for other in others if other != first] == []
