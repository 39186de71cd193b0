"""The random gas of point charges: frames, energies, features, learning curves."""


# Their priority is above that of the other figures: the first one is there first.
rule gas:
    """Generate the frames."""
    output:
        frames="<results>/gas.extxyz.gz",
    log:
        "<logs>/gas.log",
    benchmark:
        "<benchmarks>/gas.tsv"
    priority: 1
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        settings=config["gas"],
        code=code_hash("gas"),
    script:
        "../scripts/gas.py"


rule energies:
    """Coulomb energy of each frame."""
    input:
        frames=rules.gas.output.frames,
    output:
        energies="<results>/energies.csv.gz",
    log:
        "<logs>/energies.log",
    benchmark:
        "<benchmarks>/energies.tsv"
    priority: 1
    conda:
        "../envs/lode.yaml"
    threads: config["threads"]
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=config["energies"],
        code=code_hash("energies"),
    script:
        "../scripts/energies.py"


rule features:
    """What the kernel of one curve needs of each frame."""
    input:
        frames=rules.gas.output.frames,
    output:
        representation="<results>/features/{curve}.npz",
    log:
        "<logs>/features/{curve}.log",
    benchmark:
        "<benchmarks>/features/{curve}.tsv"
    priority: 1
    conda:
        "../envs/lode.yaml"
    threads: config["threads"]
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        kernel=lookup(dpath="curves/{curve}", within=described),
        code=code_hash("features"),
    script:
        "../scripts/features.py"


# One thread for each: the curves run beside each other instead.
rule learning_curve:
    """Test error of one curve for each size of the training set and each shuffle."""
    input:
        representation=rules.features.output.representation,
        energies=rules.energies.output.energies,
    output:
        errors="<results>/learning_curve/{curve}.csv.gz",
    log:
        "<logs>/learning_curve/{curve}.log",
    benchmark:
        "<benchmarks>/learning_curve/{curve}.tsv"
    priority: 1
    conda:
        "../envs/lode.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        kernel=lookup(dpath="curves/{curve}", within=described),
        settings=config["learning_curve"],
        code=code_hash("learning_curve"),
    script:
        "../scripts/learning_curve.py"
