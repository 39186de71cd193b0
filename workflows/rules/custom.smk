"""Structures of one's own: `snakemake custom --config data=my.extxyz target=energy`."""

from pathlib import Path

CUSTOM = config["custom"]


# What is missing or strange in the data is said here, before anything is learnt.
checkpoint custom_frames:
    """Check the structures, and choose models that suit them."""
    input:
        data=custom_data,
    output:
        frames="<results>/custom/frames.extxyz.gz",
        targets="<results>/custom/targets.csv.gz",
        plan="<results>/custom/plan.json",
    log:
        "<logs>/custom/frames.log",
    benchmark:
        "<benchmarks>/custom/frames.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        settings={
            "target": config["target"],
            **{
                key: CUSTOM[key] for key in ("extensive", "forces", "n_sparse", "seed")
            },
        },
        code=code_hash("custom_frames"),
    script:
        "../scripts/custom_frames.py"


# One thread for each: the models run beside each other instead.
rule custom_model:
    """Learning curve, errors, cost and file of one model."""
    input:
        frames=rules.custom_frames.output.frames,
        targets=rules.custom_frames.output.targets,
        plan=rules.custom_frames.output.plan,
    output:
        errors="<results>/custom/errors/{model}.csv.gz",
        parity="<results>/custom/parity/{model}.csv.gz",
        test="<results>/custom/test/{model}.csv.gz",
        cost="<results>/custom/cost/{model}.csv.gz",
        model="<results>/custom/{model}.npz",
    log:
        "<logs>/custom/{model}.log",
    benchmark:
        "<benchmarks>/custom/{model}.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        settings={
            key: CUSTOM[key]
            for key in (
                "test_fraction",
                "n_sizes",
                "n_repeats",
                "force_atoms",
                "seed",
                "digits",
            )
        },
        code=code_hash("custom_model"),
    script:
        "../scripts/custom_model.py"


rule custom:
    """Learning curves, parity, errors and costs of all models."""
    input:
        plan=rules.custom_frames.output.plan,
        errors=custom_models(rules.custom_model.output.errors),
        parity=custom_models(rules.custom_model.output.parity),
        test=custom_models(rules.custom_model.output.test),
        cost=custom_models(rules.custom_model.output.cost),
    output:
        table="<figures>/custom.csv",
        pdf="<figures>/custom.pdf",
        png=report(
            "<figures>/custom.png",
            category="Own data",
            labels={"figure": "Learning curves"},
        ),
        caption="<figures>/custom.txt",
        parity="<figures>/custom_parity.csv",
        parity_pdf="<figures>/custom_parity.pdf",
        parity_png=report(
            "<figures>/custom_parity.png",
            category="Own data",
            labels={"figure": "Parity"},
        ),
        parity_caption="<figures>/custom_parity.txt",
        errors=report(
            "<figures>/custom_errors.csv",
            category="Own data",
            labels={"figure": "Errors"},
        ),
        cost="<figures>/custom_cost.csv",
        page="<figures>/custom.md",
    log:
        "<logs>/custom.log",
    benchmark:
        "<benchmarks>/custom.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        data=Path(config["data"] or "").name,
        digits=CUSTOM["digits"],
        version=lode.__version__,
        style=config["style"],
        code=code_hash("custom"),
    script:
        "../scripts/custom.py"
