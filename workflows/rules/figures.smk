"""Figures and summaries: they read tables and compute nothing else.

Tables are written twice: as text for people, and compressed, with a checksum, for the
rules that read them.
"""


rule fig1:
    """Learning curves of the gas: the table and its picture."""
    input:
        provenance=rules.gas_source.output.provenance,
        errors=collect(
            rules.learning_curve.output.errors,
            curve=config["curves"],
        ),
    output:
        table="<figures>/fig1.csv",
        checked="<results>/tables/fig1.csv.gz",
        pdf="<figures>/fig1.pdf",
        png=report(
            "<figures>/fig1.png",
            category="Figures",
            caption="../report/fig1.rst",
            labels={"figure": "Figure 1: gas"},
        ),
        caption="<figures>/fig1.txt",
    log:
        "<logs>/fig1.log",
    benchmark:
        "<benchmarks>/fig1.tsv"
    priority: 1
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        curves=shown(config["curves"]),
        settings=config["fig1"],
        resolution=config["learning_curve"]["resolution"],
        gas=config["gas"],
        version=lode.__version__,
        style=config["style"],
        code=code_hash("fig1"),
    script:
        "../scripts/fig1.py"


rule fig2:
    """Binding curves of the dimers: the tables and their picture."""
    input:
        provenance=rules.dimer_source.output.provenance,
        predictions=collect(
            rules.dimer_model.output.predictions,
            model=config["dimer_models"],
        ),
        experiments=collect(
            rules.dimer_model.output.experiments,
            model=config["dimer_models"],
        ),
    output:
        table="<figures>/fig2.csv",
        checked_table="<results>/tables/fig2.csv.gz",
        classes="<figures>/fig2_classes.csv",
        curves="<figures>/fig2_curves.csv",
        experiments="<figures>/fig2_experiments.csv",
        checked_experiments="<results>/tables/fig2_experiments.csv.gz",
        tails="<figures>/fig2_tails.csv",
        checked_tails="<results>/tables/fig2_tails.csv.gz",
        pdf="<figures>/fig2.pdf",
        png=report(
            "<figures>/fig2.png",
            category="Figures",
            caption="../report/fig2.rst",
            labels={"figure": "Figure 2: dimers"},
        ),
        caption="<figures>/fig2.txt",
    log:
        "<logs>/fig2.log",
    benchmark:
        "<benchmarks>/fig2.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        models=shown(config["dimer_models"]),
        digits=config["fig2"]["digits"],
        engine=config["dimers"]["engine"],
        version=lode.__version__,
        style=config["style"],
        code=code_hash("fig2"),
    script:
        "../scripts/fig2.py"


rule fig3:
    """Learning curves of the dielectric response of water: table and picture."""
    input:
        provenance=rules.water_source.output.provenance,
        errors=collect(
            rules.water_curve.output.errors,
            curve=config["water_models"],
        ),
    output:
        table="<figures>/fig3.csv",
        checked="<results>/tables/fig3.csv.gz",
        pdf="<figures>/fig3.pdf",
        png=report(
            "<figures>/fig3.png",
            category="Figures",
            caption="../report/fig3.rst",
            labels={"figure": "Figure 3: water"},
        ),
        caption="<figures>/fig3.txt",
    log:
        "<logs>/fig3.log",
    benchmark:
        "<benchmarks>/fig3.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        models=shown(config["water_models"]),
        settings=config["fig3"],
        version=lode.__version__,
        style=config["style"],
        code=code_hash("fig3"),
    script:
        "../scripts/fig3.py"


rule summary:
    """Each claim of the configuration: what the paper says, what we find."""
    input:
        fig1=first_claimed,
        gas=rules.gas_source.output.provenance,
        fig2=rules.fig2.output.checked_table,
        fig2_experiments=rules.fig2.output.checked_experiments,
        fig2_tails=rules.fig2.output.checked_tails,
        provenance=rules.dimer_source.output.provenance,
        fig3=rules.fig3.output.checked,
        fig3_tensor=rules.fig3_tensor.output.checked,
        water=rules.water_source.output.provenance,
    output:
        table="<figures>/summary.csv",
        checked="<results>/tables/summary.csv.gz",
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
        curves={
            "fig1": shown(config["curves"]),
            "fig2": shown(config["dimer_models"]),
            "fig3": shown(config["water_models"]),
            "fig3_tensor": shown(config["water_tensor_models"]),
        },
        gas=config["gas"],
        engine=config["dimers"]["engine"],
        version=lode.__version__,
        code=code_hash("summary"),
    script:
        "../scripts/summary.py"


rule readme:
    """The table in the README, and the times that the rules took."""
    input:
        summary=rules.summary.output.checked,
        fig1=[
            "<benchmarks>/gas_source.tsv",
            collect(
                "<benchmarks>/{rule}/{chunk}.tsv",
                rule=["gas", "energies", *collect("features/{c}", c=config["curves"])],
                chunk=GAS_CHUNKS,
            ),
            collect("<benchmarks>/learning_curve/{curve}.tsv", curve=config["curves"]),
            "<benchmarks>/fig1.tsv",
        ],
        fig2=[
            "<benchmarks>/dimers/source.tsv",
            "<benchmarks>/dimers/geometries.tsv",
            collect("<benchmarks>/dimers/energies/{chunk}.tsv", chunk=DIMER_CHUNKS),
            "<benchmarks>/dimers/curves.tsv",
            collect(
                "<benchmarks>/dimers/{rule}/{model}.tsv",
                rule=["features", "model"],
                model=config["dimer_models"],
            ),
            "<benchmarks>/fig2.tsv",
        ],
        fig3=[
            "<benchmarks>/water/source.tsv",
            "<benchmarks>/water/boxes.tsv",
            collect(
                "<benchmarks>/water/kernels/{kernel}.tsv",
                kernel=described["water_kernels"],
            ),
            collect(
                "<benchmarks>/water/curves/{curve}.tsv",
                curve=config["water_models"],
            ),
            "<benchmarks>/fig3.tsv",
        ],
        # What it takes beside the boxes and figure 3.
        fig3_tensor=[
            collect(
                "<benchmarks>/water/tensor_features/{features}.tsv",
                features=config["water_tensor_features"],
            ),
            collect(
                "<benchmarks>/water/tensor_curves/{curve}.tsv",
                curve=config["water_tensor_models"],
            ),
            "<benchmarks>/fig3_tensor.tsv",
        ],
    output:
        page=update("<readme>"),
        times="<figures>/times.csv",
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


rule report_pages:
    """Pages of the report: claims and data, settings, times, versions."""
    input:
        summary=rules.summary.output.checked,
        times=rules.readme.output.times,
        captions=[
            rules.fig1.output.caption,
            rules.fig2.output.caption,
            rules.fig3.output.caption,
            rules.fig3_tensor.output.caption,
        ],
    output:
        summary=report(
            "<results>/report/summary.html",
            category="Summary",
            caption="../report/summary.rst",
            labels={"page": "Claims and data"},
        ),
        times=report(
            "<results>/report/times.html",
            category="Times",
            caption="../report/times.rst",
            labels={"page": "Wall times and memory"},
        ),
        settings=report(
            "<results>/report/settings.html",
            category="Settings",
            caption="../report/settings.rst",
            labels={"page": "Configuration"},
        ),
        versions=report(
            "<results>/report/versions.html",
            category="Versions",
            caption="../report/versions.rst",
            labels={"page": "Packages"},
        ),
    log:
        "<logs>/report_pages.log",
    benchmark:
        "<benchmarks>/report_pages.tsv"
    conda:
        "../envs/lode.yaml"
    threads: 1
    params:
        figures=["fig1", "fig2", "fig3", "fig3_tensor"],
        settings=config,
        version=lode.__version__,
        code=code_hash("report_pages"),
    script:
        "../scripts/report_pages.py"


# The figures are tracked, their benchmarks are not: with both asked for, a new clone
# computes the figures instead of finding them there.
rule figures:
    """Every figure and the summary."""
    input:
        rules.fig1.output,
        rules.fig1.benchmark,
        rules.fig2.output,
        rules.fig2.benchmark,
        rules.fig3.output,
        rules.fig3.benchmark,
        rules.fig3_tensor.output,
        rules.fig3_tensor.benchmark,
        rules.summary.output,
