"""Boxes of water: where they come from, kernels between them, learning curves."""


rule water_source:
    """Get the published data, or settle for a stand-in."""
    output:
        provenance="<results>/water/provenance.json",
    log:
        "<logs>/water/source.log",
    benchmark:
        "<benchmarks>/water/source.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        data_set="water",
        source=config["water"]["source"],
        mirror=config["water"]["mirror"],
        code=code_hash("source"),
    script:
        "../scripts/source.py"


rule water_boxes:
    """The boxes with their dielectric tensors, in one form."""
    input:
        provenance=rules.water_source.output.provenance,
    output:
        boxes="<results>/water/boxes.extxyz.gz",
    log:
        "<logs>/water/boxes.log",
    benchmark:
        "<benchmarks>/water/boxes.tsv"
    conda:
        "../envs/lode.yaml"
    threads: config["threads"]
    params:
        generated=config["water"]["generated"],
        code=code_hash("water_boxes"),
    script:
        "../scripts/water_boxes.py"


# One thread for each job from here on: they run beside each other instead.
rule water_kernel:
    """One kernel between all boxes, or as fitted to each training set."""
    input:
        boxes=rules.water_boxes.output.boxes,
    output:
        kernel="<results>/water/kernels/{kernel}.npz",
    log:
        "<logs>/water/kernels/{kernel}.log",
    benchmark:
        "<benchmarks>/water/kernels/{kernel}.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        kernel=lookup(dpath="{kernel}", within=described["water_kernels"]),
        curve={
            key: curves_settings["water_curve"][key]
            for key in ("n_train", "n_test", "n_repeats", "seed")
        },
        code=code_hash("water_kernel"),
    script:
        "../scripts/water_kernel.py"


rule water_curve:
    """Test error of one model for each size of the training set and each shuffle."""
    input:
        boxes=rules.water_boxes.output.boxes,
        kernels=lambda wildcards: collect(
            rules.water_kernel.output.kernel,
            kernel=config["water_models"][wildcards.curve]["kernels"],
        ),
    output:
        errors="<results>/water/curves/{curve}.csv.gz",
    log:
        "<logs>/water/curves/{curve}.log",
    benchmark:
        "<benchmarks>/water/curves/{curve}.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        target=lookup(dpath="{curve}/target", within=config["water_models"]),
        geometry=lookup(dpath="{curve}/geometry", within=config["water_models"]),
        curve=curves_settings["water_curve"],
        code=code_hash("water_curve"),
    script:
        "../scripts/water_curve.py"


rule water:
    """Learning curves of all models of water."""
    input:
        collect(rules.water_curve.output, curve=config["water_models"]),
