"""What all files of rules share: the checked configuration, the hash of the code."""

import lode
from lode.files import read_json
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import update_config
from workflows.code_hash import code_hash
from workflows.configuration import (
    ConfigurationError,
    check_claims,
    check_configuration,
    chunks,
    curve_settings,
    given_at,
    shown,
    size_notes,
    source_line,
    descriptions,
    typed,
)
from workflows.folders import refuse_future, refuse_read_only

# Numbers inside of its mappings come as text.
COMMAND_LINE = typed(workflow.config_settings.config)
update_config(config, COMMAND_LINE)


def located(error):
    """An error of the configuration as one line that says where the fault stands."""
    # Files given on the command line come first in Snakemake's list, and override.
    files = workflow.configfiles
    line = source_line(error.place, [*files[-1:], *files[:-1]])
    if given_at(error.place, COMMAND_LINE):
        line = "--config"
    return WorkflowError(f"{error} ({line})" if line else str(error))


try:
    check_configuration(config)
except ConfigurationError as error:
    raise located(error) from None

# What the rules compute, by block and name: their parameters.
described = descriptions(config)
# With the sizes that fit into the frames.
curves_settings = {
    block: curve_settings(config, block) for block in ("learning_curve", "water_curve")
}
# The jobs read these lines, too.
if workflow.is_main_process:
    for note in size_notes(config):
        logger.warning(note)


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


def first_claimed(_):
    """Table of figure 1. Claims are checked here: where they are asked for, only."""
    try:
        check_claims(config)
    except ConfigurationError as error:
        raise located(error) from None
    return rules.fig1.output.checked


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
