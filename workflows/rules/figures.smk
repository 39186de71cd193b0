"""Figures and summaries: they read tables and compute nothing else."""


rule fig1:
    """Learning curves of the gas: the table and its picture."""
    input:
        errors=collect(
            rules.learning_curve.output.errors,
            curve=config["curves"],
        ),
    output:
        table="<figures>/fig1.csv",
        pdf="<figures>/fig1.pdf",
        png="<figures>/fig1.png",
    log:
        "<logs>/fig1.log",
    benchmark:
        "<benchmarks>/fig1.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        curves=config["curves"],
        settings=config["fig1"],
        resolution=config["learning_curve"]["resolution"],
        gas=config["gas"],
        version=lode.__version__,
        code=code_hash("fig1"),
    script:
        "../scripts/fig1.py"


rule summary:
    """Each claim of the configuration: what the paper says, what we find."""
    input:
        fig1=rules.fig1.output.table,
    output:
        table="<figures>/summary.csv",
        page="<figures>/summary.md",
    log:
        "<logs>/summary.log",
    benchmark:
        "<benchmarks>/summary.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        claims=config["summary"]["claims"],
        curves=config["curves"],
        gas=config["gas"],
        version=lode.__version__,
        code=code_hash("summary"),
    script:
        "../scripts/summary.py"


rule readme:
    """The table in the README, with the times that the rules took."""
    input:
        summary=rules.summary.output.table,
        fig1=[
            "<benchmarks>/gas.tsv",
            "<benchmarks>/energies.tsv",
            collect(
                "<benchmarks>/{rule}/{curve}.tsv",
                rule=["features", "learning_curve"],
                curve=config["curves"],
            ),
            "<benchmarks>/fig1.tsv",
        ],
    output:
        page=update("<readme>"),
    log:
        "<logs>/readme.log",
    benchmark:
        "<benchmarks>/readme.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        code=code_hash("readme"),
    script:
        "../scripts/readme.py"


# The figures are tracked, their benchmarks are not: with both asked for, a new clone
# computes the figures instead of finding them there.
rule figures:
    """Every figure and the summary."""
    input:
        rules.fig1.output,
        rules.fig1.benchmark,
        rules.summary.output,
