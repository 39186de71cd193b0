"""What all files of rules share: the checked configuration, the hash of the code."""

import lode
from lode.files import read_json
from snakemake.exceptions import WorkflowError
from workflows.code_hash import code_hash
from workflows.configuration import (
    ConfigurationError,
    check_configuration,
    chunks,
    shown,
    source_line,
    descriptions,
)
from workflows.folders import refuse_future, refuse_read_only

try:
    check_configuration(config)
except ConfigurationError as error:
    # Files given on the command line come first in Snakemake's list, and override.
    files = workflow.configfiles
    line = source_line(error.place, [*files[-1:], *files[:-1]])
    raise WorkflowError(f"{error} ({line})" if line else str(error)) from None

# What the rules compute, by block and name: their parameters.
described = descriptions(config)


onstart:
    try:
        for name in ("results", "logs", "benchmarks", "figures"):
            refuse_read_only(config["pathvars"][name])
        refuse_future(config["pathvars"]["results"])
    except (OSError, ValueError) as error:
        raise WorkflowError(str(error)) from None


wildcard_constraints:
    chunk="[0-9]+",
    curve="[a-z0-9_.]+",
    model="[a-z0-9_.]+",
    kernel="[A-Za-z0-9_]+",
    features="[a-z0-9_.]+",


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
