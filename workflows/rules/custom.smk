"""Structures of one's own: `snakemake custom --config data=my.extxyz target=energy`."""

from lode.files import read_json

CUSTOM = config["custom"]


def custom_data(_):
    """The file of structures; it must be given where this target is asked for."""
    if config["data"] is None:
        raise WorkflowError(
            "custom needs structures: snakemake custom --config data=my.extxyz "
            "target=energy"
        )
    return config["data"]


def custom_models(output):
    """Files of all models, which the data decide on."""

    def files(_):
        plan = checkpoints.custom_frames.get().output.plan
        return collect(output, model=read_json(plan)["curves"])

    return files


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
    resources:
        mem_mb=4000,
        runtime=60,
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
        png="<figures>/custom.png",
        parity="<figures>/custom_parity.csv",
        parity_pdf="<figures>/custom_parity.pdf",
        parity_png="<figures>/custom_parity.png",
        errors="<figures>/custom_errors.csv",
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
        data=str(config["data"]),
        digits=CUSTOM["digits"],
        version=lode.__version__,
        code=code_hash("custom"),
    script:
        "../scripts/custom.py"
