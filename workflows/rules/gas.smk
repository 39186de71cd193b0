"""The random gas of point charges: frames, energies, features, learning curves."""

# Frames are made, summed and described chunk by chunk; the curves take all chunks.
GAS_CHUNKS = chunks(config["gas"]["n_frames"], config["chunk_size"])


# Their priority is above that of the other figures: the first one is there first.
rule gas_source:
    """Get the published data, if they are asked for."""
    output:
        provenance="<results>/gas/provenance.json",
    log:
        "<logs>/gas_source.log",
    benchmark:
        "<benchmarks>/gas_source.tsv"
    priority: 1
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        data_set="gas",
        source=config["gas"]["source"],
        mirror=config["gas"]["mirror"],
        code=code_hash("source"),
    script:
        "../scripts/source.py"


rule gas:
    """Generate the frames of a chunk, or bring published ones into the same form."""
    input:
        provenance=rules.gas_source.output.provenance,
    output:
        frames="<results>/gas/{chunk}.extxyz.gz",
    log:
        "<logs>/gas/{chunk}.log",
    benchmark:
        "<benchmarks>/gas/{chunk}.tsv"
    priority: 1
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        chunk=lookup(dpath="{chunk}", within=GAS_CHUNKS),
        settings={
            key: config["gas"][key]
            for key in ("n_pairs", "side", "min_distance", "seed")
        },
        code=code_hash("gas"),
    script:
        "../scripts/gas.py"


rule energies:
    """Coulomb energy of each frame."""
    input:
        frames=rules.gas.output.frames,
    output:
        energies="<results>/energies/{chunk}.csv.gz",
    log:
        "<logs>/energies/{chunk}.log",
    benchmark:
        "<benchmarks>/energies/{chunk}.tsv"
    priority: 1
    conda:
        "../envs/lode.yaml"
    threads: config["threads"]
    params:
        first=lookup(dpath="{chunk}/first", within=GAS_CHUNKS),
        settings=config["energies"],
        code=code_hash("energies"),
    script:
        "../scripts/energies.py"


# One thread for each job from here on: they run beside each other instead.
rule features:
    """What the kernel of one curve needs of each frame of a chunk."""
    input:
        frames=rules.gas.output.frames,
    output:
        representation="<results>/features/{curve}/{chunk}.npz",
    log:
        "<logs>/features/{curve}/{chunk}.log",
    benchmark:
        "<benchmarks>/features/{curve}/{chunk}.tsv"
    priority: 1
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        kernel=lookup(dpath="{curve}", within=described["curves"]),
        code=code_hash("features"),
    script:
        "../scripts/features.py"


rule learning_curve:
    """Test error of one curve for each size of the training set and each shuffle."""
    input:
        representations=collect(
            rules.features.output.representation, chunk=GAS_CHUNKS, allow_missing=True
        ),
        energies=collect(rules.energies.output.energies, chunk=GAS_CHUNKS),
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
    params:
        kernel=lookup(dpath="{curve}", within=described["curves"]),
        settings=curves_settings["learning_curve"],
        code=code_hash("learning_curve"),
    script:
        "../scripts/learning_curve.py"
