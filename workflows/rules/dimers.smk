"""Charged dimers: where they come from, their geometries, their binding curves."""


rule dimer_source:
    """Get the published data, or settle for a stand-in."""
    output:
        provenance="<results>/dimers/provenance.json",
    log:
        "<logs>/dimers/source.log",
    benchmark:
        "<benchmarks>/dimers/source.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        data_set="dimers",
        source=config["dimers"]["source"],
        mirror=config["dimers"]["mirror"],
        code=code_hash("source"),
    script:
        "../scripts/source.py"


rule dimer_geometries:
    """The charged dimers, in one form."""
    input:
        provenance=rules.dimer_source.output.provenance,
    output:
        dimers="<results>/dimers/geometries.extxyz.gz",
    log:
        "<logs>/dimers/geometries.log",
    benchmark:
        "<benchmarks>/dimers/geometries.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        elements=config["dimers"]["elements"],
        generated=config["dimers"]["generated"],
        engine=config["dimers"]["engine"],
        code=code_hash("dimer_geometries"),
    script:
        "../scripts/dimer_geometries.py"


# How many dimers there are is known only then: as many parts as of generated ones.
DIMER_CHUNKS = chunks(config["dimers"]["generated"]["n_dimers"], config["chunk_size"])


# Finished dimers are kept beside the energies until all of the chunk are done: a run that
# was interrupted goes on where it was.
rule dimer_energies:
    """Reference energies along the curves of a chunk of the dimers."""
    input:
        provenance=rules.dimer_source.output.provenance,
        dimers=rules.dimer_geometries.output.dimers,
    output:
        energies="<results>/dimers/energies/{chunk}.json",
    log:
        "<logs>/dimers/energies/{chunk}.log",
    benchmark:
        "<benchmarks>/dimers/energies/{chunk}.tsv"
    conda:
        "../envs/lode.yaml"
    threads: config["threads"]
    params:
        engine=config["dimers"]["engine"],
        curve=config["dimers"]["curve"],
        charge_tolerance=config["dimers"]["charge_tolerance"],
        n_parts=len(DIMER_CHUNKS),
        code=code_hash("dimer_energies"),
    script:
        "../scripts/dimer_energies.py"


rule dimer_curves:
    """The dimers along their curves, with reference energies, and checks of these."""
    input:
        provenance=rules.dimer_source.output.provenance,
        dimers=rules.dimer_geometries.output.dimers,
        energies=collect(rules.dimer_energies.output.energies, chunk=DIMER_CHUNKS),
    output:
        curves="<results>/dimers/curves.extxyz.gz",
        excluded="<results>/dimers/excluded.csv",
        checks="<results>/dimers/checks.csv",
    log:
        "<logs>/dimers/curves.log",
    benchmark:
        "<benchmarks>/dimers/curves.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        curve=config["dimers"]["curve"],
        code=code_hash("dimer_curves"),
    script:
        "../scripts/dimer_curves.py"


rule dimers:
    """Binding curves of the dimers."""
    input:
        rules.dimer_curves.output,
