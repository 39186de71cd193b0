"""Examples with forces: a liquid and a crystal of ions, and charged dimers."""

from workflows.configuration import liquid_potentials, salt_label

SALT = config["salt"]
LIQUID = config["liquid"]
CRYSTAL = config["crystal"]
DIMERS = config["force_dimers"]
# Models by size of the training set, as `lode1_100`, and the exact potential.
LIQUID_MODELS = liquid_potentials(config)
LIQUID_RUNS = [
    (name, ensemble, start)
    for name in ["exact", *(n for n, own in LIQUID_MODELS.items() if own["runs"])]
    for ensemble, n in [("nve", LIQUID["n_starts"]), ("npt", 1)]
    for start in range(n)
]


rule liquid_frames:
    """Frames of the liquid by the exact potential, and states to start from."""
    output:
        frames="<results>/examples/liquid/frames.extxyz.gz",
        starts="<results>/examples/liquid/starts.extxyz.gz",
    log:
        "<logs>/examples/liquid/frames.log",
    benchmark:
        "<benchmarks>/examples/liquid/frames.tsv"
    priority: 1
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        settings={
            "potential": SALT,
            "n_frames": max(m["n_train"] for m in LIQUID["models"]) + LIQUID["n_test"],
            **{
                key: LIQUID[key]
                for key in (
                    "n_pairs",
                    "side",
                    "thermal_energy",
                    "pressure",
                    "timestep",
                    "equilibration",
                    "spacing",
                    "n_starts",
                    "seed",
                )
            },
        },
        code=code_hash("liquid_frames"),
    script:
        "../scripts/liquid_frames.py"


rule liquid_model:
    """A model of the liquid, and its errors."""
    input:
        frames=rules.liquid_frames.output.frames,
    output:
        model="<results>/examples/liquid/models/{potential}.npz",
        errors="<results>/examples/liquid/models/{potential}.csv.gz",
    log:
        "<logs>/examples/liquid/models/{potential}.log",
    benchmark:
        "<benchmarks>/examples/liquid/models/{potential}.tsv"
    priority: 1
    conda:
        "../envs/lode.yaml"
    threads: config["threads"]
    params:
        own=lambda wildcards: {
            "model": described["salt_models"][
                LIQUID_MODELS[wildcards.potential]["model"]
            ],
            "n_train": LIQUID_MODELS[wildcards.potential]["n_train"],
            "n_test": LIQUID["n_test"],
        },
        code=code_hash("salt_model"),
    script:
        "../scripts/salt_model.py"


rule liquid_run:
    """Molecular dynamics of the liquid by a model, or by the exact potential."""
    input:
        starts=rules.liquid_frames.output.starts,
        model=branch(
            lambda wildcards: wildcards.potential != "exact",
            then=rules.liquid_model.output.model,
        ),
    output:
        run="<results>/examples/liquid/runs/{potential}_{ensemble}_{start}.npz",
    log:
        "<logs>/examples/liquid/runs/{potential}_{ensemble}_{start}.log",
    benchmark:
        "<benchmarks>/examples/liquid/runs/{potential}_{ensemble}_{start}.tsv"
    wildcard_constraints:
        potential="[a-z0-9_]+",
        ensemble="nve|npt",
        start="[0-9]+",
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        settings={
            "potential": SALT,
            **{
                key: LIQUID[key]
                for key in (
                    "thermal_energy",
                    "pressure",
                    "timestep",
                    "length",
                    "every",
                    "seed",
                )
            },
        },
        code=code_hash("liquid_run"),
    script:
        "../scripts/liquid_run.py"


rule liquid:
    """Structure, pressure and diffusion of the liquid: table and picture."""
    input:
        runs=[
            f"<results>/examples/liquid/runs/{name}_{ensemble}_{start}.npz"
            for name, ensemble, start in LIQUID_RUNS
        ],
        errors=collect(rules.liquid_model.output.errors, potential=LIQUID_MODELS),
    output:
        table="<figures>/example_liquid.csv",
        pdf="<figures>/example_liquid.pdf",
        png=report(
            "<figures>/example_liquid.png",
            category="Examples",
            caption="../report/example_liquid.rst",
            labels={"figure": "Liquid"},
        ),
        caption="<figures>/example_liquid.txt",
    log:
        "<logs>/examples/liquid.log",
    benchmark:
        "<benchmarks>/examples/liquid.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        potentials=[name for name, *_ in LIQUID_RUNS],
        ensembles=[ensemble for _, ensemble, _ in LIQUID_RUNS],
        models=list(LIQUID_MODELS),
        labels={
            "exact": "exact",
            **{
                name: salt_label(config, own["model"], own["n_train"])
                for name, own in LIQUID_MODELS.items()
            },
        },
        provenance=(
            f"{2 * LIQUID['n_pairs']} charges ±1, kT = {LIQUID['thermal_energy']:g} eV, "
            f"{LIQUID['pressure']:g} GPa, repulsion {SALT['amplitude']:g} eV "
            f"exp(−r/{SALT['range']:g} Å), lode {lode.__version__}"
        ),
        style=config["style"],
        code=code_hash("liquid"),
    script:
        "../scripts/liquid.py"


rule crystal_frames:
    """Rock salt with random strains and displacements by the exact potential."""
    output:
        frames="<results>/examples/crystal/frames.extxyz.gz",
    log:
        "<logs>/examples/crystal/frames.log",
    benchmark:
        "<benchmarks>/examples/crystal/frames.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        settings={
            "potential": SALT,
            "n_frames": CRYSTAL["n_train"] + CRYSTAL["n_test"],
            **{
                key: CRYSTAL[key]
                for key in ("constant", "repeats", "strain", "displacement", "seed")
            },
        },
        code=code_hash("crystal_frames"),
    script:
        "../scripts/crystal_frames.py"


rule crystal_model:
    """A model of the crystal, and its errors."""
    input:
        frames=rules.crystal_frames.output.frames,
    output:
        model="<results>/examples/crystal/models/{model}.npz",
        errors="<results>/examples/crystal/models/{model}.csv.gz",
    log:
        "<logs>/examples/crystal/models/{model}.log",
    benchmark:
        "<benchmarks>/examples/crystal/models/{model}.tsv"
    conda:
        "../envs/lode.yaml"
    threads: config["threads"]
    params:
        own=lambda wildcards: {
            "model": described["salt_models"][wildcards.model],
            "n_train": CRYSTAL["n_train"],
            "n_test": CRYSTAL["n_test"],
        },
        code=code_hash("salt_model"),
    script:
        "../scripts/salt_model.py"


rule crystal_properties:
    """Lattice constant, elastic constants, optical branches and drift."""
    input:
        model=branch(
            lambda wildcards: wildcards.model != "exact",
            then=rules.crystal_model.output.model,
        ),
    output:
        found="<results>/examples/crystal/properties/{model}.json",
    log:
        "<logs>/examples/crystal/properties/{model}.log",
    benchmark:
        "<benchmarks>/examples/crystal/properties/{model}.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        settings={
            "potential": SALT,
            **{key: CRYSTAL[key] for key in ("constant", "waves", "dynamics", "seed")},
        },
        code=code_hash("crystal"),
    script:
        "../scripts/crystal.py"


rule crystal:
    """Properties of rock salt: table and picture."""
    input:
        found=collect(
            rules.crystal_properties.output.found,
            model=["exact", *config["salt_models"]],
        ),
        errors=collect(rules.crystal_model.output.errors, model=config["salt_models"]),
    output:
        table="<figures>/example_crystal.csv",
        pdf="<figures>/example_crystal.pdf",
        png=report(
            "<figures>/example_crystal.png",
            category="Examples",
            caption="../report/example_crystal.rst",
            labels={"figure": "Crystal"},
        ),
        caption="<figures>/example_crystal.txt",
    log:
        "<logs>/examples/crystal.log",
    benchmark:
        "<benchmarks>/examples/crystal.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        potentials=["exact", *config["salt_models"]],
        models=list(config["salt_models"]),
        labels={
            "exact": "exact",
            **{
                name: salt_label(config, name, CRYSTAL["n_train"])
                for name in config["salt_models"]
            },
        },
        provenance=(
            f"charges ±1, repulsion {SALT['amplitude']:g} eV "
            f"exp(−r/{SALT['range']:g} Å), lode {lode.__version__}"
        ),
        style=config["style"],
        code=code_hash("crystal_figure"),
    script:
        "../scripts/crystal_figure.py"


rule force_dimer_source:
    """Get the published dimers with forces, or settle for a stand-in."""
    output:
        provenance="<results>/examples/dimers/provenance.json",
    log:
        "<logs>/examples/dimers/source.log",
    benchmark:
        "<benchmarks>/examples/dimers/source.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        data_set="force_dimers",
        source=DIMERS["source"],
        mirror=DIMERS["mirror"],
        code=code_hash("source"),
    script:
        "../scripts/source.py"


rule force_dimer_frames:
    """Charged dimers with forces, in one form."""
    input:
        provenance=rules.force_dimer_source.output.provenance,
    output:
        frames="<results>/examples/dimers/frames.extxyz.gz",
    log:
        "<logs>/examples/dimers/frames.log",
    benchmark:
        "<benchmarks>/examples/dimers/frames.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        generated=DIMERS["generated"],
        engine=DIMERS["engine"],
        code=code_hash("force_dimers"),
    script:
        "../scripts/force_dimers.py"


# One thread for each: the models run beside each other instead.
rule force_dimer_model:
    """Learn from near dimers, predict far ones."""
    input:
        frames=rules.force_dimer_frames.output.frames,
    output:
        predictions="<results>/examples/dimers/predictions/{model}.csv.gz",
        cross="<results>/examples/dimers/cross/{model}.csv.gz",
    log:
        "<logs>/examples/dimers/models/{model}.log",
    benchmark:
        "<benchmarks>/examples/dimers/models/{model}.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        own=lambda wildcards: {
            "model": described["force_dimer_models"][wildcards.model],
            **{key: DIMERS[key] for key in ("near", "copies", "seed")},
        },
        code=code_hash("force_dimer_model"),
    script:
        "../scripts/force_dimer_model.py"


rule force_dimers:
    """Errors of far dimers: table and picture."""
    input:
        provenance=rules.force_dimer_source.output.provenance,
        predictions=collect(
            rules.force_dimer_model.output.predictions,
            model=config["force_dimer_models"],
        ),
        crosses=collect(
            rules.force_dimer_model.output.cross, model=config["force_dimer_models"]
        ),
    output:
        table="<figures>/example_dimers.csv",
        pdf="<figures>/example_dimers.pdf",
        png=report(
            "<figures>/example_dimers.png",
            category="Examples",
            caption="../report/example_dimers.rst",
            labels={"figure": "Dimers with forces"},
        ),
        caption="<figures>/example_dimers.txt",
    log:
        "<logs>/examples/dimers.log",
    benchmark:
        "<benchmarks>/examples/dimers.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        models={
            name: {key: model[key] for key in ("label", "point_charges")}
            for name, model in config["force_dimer_models"].items()
        },
        version=lode.__version__,
        style=config["style"],
        code=code_hash("force_dimers_figure"),
    script:
        "../scripts/force_dimers_figure.py"


rule examples:
    """All examples."""
    input:
        rules.force_dimers.output,
        rules.force_dimers.benchmark,
        rules.liquid.output,
        rules.liquid.benchmark,
        rules.crystal.output,
        rules.crystal.benchmark,
