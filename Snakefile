"""The figures of the paper, from the data to the page.

`snakemake` makes everything, `snakemake figures` all but the table in the README,
and the name of a rule, as in `snakemake fig1`, what that rule needs.
"""

from snakemake.utils import min_version

min_version("9.19")


# Beside this file, whatever the working folder is.
configfile: f"{workflow.basedir}/workflows/config.yaml"


report: "workflows/report/workflow.rst"


include: "workflows/rules/common.smk"
include: "workflows/rules/gas.smk"
include: "workflows/rules/dimers.smk"
include: "workflows/rules/dimers_models.smk"
include: "workflows/rules/water.smk"
include: "workflows/rules/water_tensor.smk"
include: "workflows/rules/figures.smk"
include: "workflows/rules/examples.smk"
include: "workflows/rules/custom.smk"


localrules:
    all,
    figures,
    gas_source,
    dimer_source,
    dimers,
    water_source,
    water,
    fig1,
    fig2,
    fig3,
    fig3_tensor,
    summary,
    readme,
    report_pages,
    liquid,
    crystal,
    force_dimer_source,
    force_dimer_frames,
    force_dimers,
    examples,
    custom_frames,
    custom,


rule all:
    """Every figure, the summary, the table in the README, and the report's pages."""
    default_target: True
    input:
        rules.figures.input,
        rules.readme.output,
        rules.report_pages.output,
