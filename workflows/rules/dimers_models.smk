"""Models of the binding curves: features, predictions, other splits."""


# One thread for each job from here on: they run beside each other instead.
rule dimer_features:
    """Sparse points of one model in each split, and its features of every frame."""
    input:
        curves="<results>/dimers/curves.extxyz.gz",
    output:
        features="<results>/dimers/features/{model}.npz",
    log:
        "<logs>/dimers/features/{model}.log",
    benchmark:
        "<benchmarks>/dimers/features/{model}.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        settings=lookup(dpath="{model}", within=described["dimer_models"]),
        isolated=lookup(dpath="{model}/isolated", within=config["dimer_models"]),
        splits={
            key: config["dimer_model"][key]
            for key in ("train_fraction", "n_splits", "seed")
        },
        code=code_hash("dimer_features"),
    script:
        "../scripts/dimer_features.py"


rule dimer_model:
    """Predictions of one model, and its errors where other dimers are left out."""
    input:
        curves="<results>/dimers/curves.extxyz.gz",
        features=rules.dimer_features.output.features,
    output:
        predictions="<results>/dimers/predictions/{model}.csv.gz",
        experiments="<results>/dimers/experiments/{model}.csv.gz",
    log:
        "<logs>/dimers/model/{model}.log",
    benchmark:
        "<benchmarks>/dimers/model/{model}.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        intercept=lookup(dpath="{model}/intercept", within=config["dimer_models"]),
        isolated=lookup(dpath="{model}/isolated", within=config["dimer_models"]),
        hold_out=lookup(dpath="{model}/hold_out", within=config["dimer_models"]),
        settings=config["dimer_model"],
        code=code_hash("dimer_model"),
    script:
        "../scripts/dimer_model.py"
