"""The anisotropic part of the dielectric tensor of water: features, learning curves."""


# One thread for each job from here on: they run beside each other instead.
rule water_tensor_features:
    """Equivariant features of one descriptor, summed over each box."""
    input:
        boxes=rules.water_boxes.output.boxes,
    output:
        features="<results>/water/tensor_features/{features}.npz",
    log:
        "<logs>/water/tensor_features/{features}.log",
    benchmark:
        "<benchmarks>/water/tensor_features/{features}.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        descriptor=lookup(dpath="{features}", within=described["water_tensor_features"]),
        curve={
            key: curves_settings["water_curve"][key]
            for key in ("n_train", "n_test", "n_repeats", "seed")
        },
        code=code_hash("water_tensor_features"),
    script:
        "../scripts/water_tensor_features.py"


rule water_tensor_curve:
    """Test error of one model for each size of the training set and each shuffle."""
    input:
        boxes=rules.water_boxes.output.boxes,
        features=lambda wildcards: collect(
            rules.water_tensor_features.output.features,
            features=config["water_tensor_models"][wildcards.curve]["features"],
        ),
    output:
        errors="<results>/water/tensor_curves/{curve}.csv.gz",
    log:
        "<logs>/water/tensor_curves/{curve}.log",
    benchmark:
        "<benchmarks>/water/tensor_curves/{curve}.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        exponents=lambda wildcards: [
            config["water_tensor_features"][name]["exponent"]
            for name in config["water_tensor_models"][wildcards.curve]["features"]
        ],
        n_components=lookup(
            dpath="water_tensor_models/{curve}/n_components", within=config
        ),
        curve=curves_settings["water_curve"],
        code=code_hash("water_tensor_curve"),
    script:
        "../scripts/water_tensor_curve.py"


rule fig3_tensor:
    """Both parts of the tensor: the table of the second, and the picture."""
    input:
        provenance=rules.water_source.output.provenance,
        trace="<results>/tables/fig3.csv.gz",
        errors=collect(
            rules.water_tensor_curve.output.errors,
            curve=config["water_tensor_models"],
        ),
    output:
        table="<figures>/fig3_tensor.csv",
        checked="<results>/tables/fig3_tensor.csv.gz",
        pdf="<figures>/fig3_tensor.pdf",
        png=report(
            "<figures>/fig3_tensor.png",
            category="Figures",
            caption="../report/fig3_tensor.rst",
            labels={"figure": "Water, both parts"},
        ),
        caption="<figures>/fig3_tensor.txt",
    log:
        "<logs>/fig3_tensor.log",
    benchmark:
        "<benchmarks>/fig3_tensor.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        models=shown(config["water_tensor_models"]),
        settings=config["fig3"],
        version=lode.__version__,
        style=config["style"],
        code=code_hash("fig3_tensor"),
    script:
        "../scripts/fig3_tensor.py"
