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


# Finished chunks are kept beside the curves until all are done: a run that was
# interrupted goes on where it was.
rule dimer_curves:
    """Reference energies along each dimer's curve, and their checks."""
    input:
        provenance=rules.dimer_source.output.provenance,
        dimers=rules.dimer_geometries.output.dimers,
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
    threads: config["threads"]
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        engine=config["dimers"]["engine"],
        curve=config["dimers"]["curve"],
        charge_tolerance=config["dimers"]["charge_tolerance"],
        code=code_hash("dimer_curves"),
    script:
        "../scripts/dimer_curves.py"


rule dimers:
    """Binding curves of the dimers."""
    input:
        rules.dimer_curves.output,
