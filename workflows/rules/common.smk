"""What the other rule files share: the checked configuration and the code's hash."""

import lode
from snakemake.exceptions import WorkflowError
from workflows.code_hash import code_hash
from workflows.configuration import check_configuration

try:
    check_configuration(config)
except ValueError as error:
    raise WorkflowError(str(error)) from None


wildcard_constraints:
    curve="[a-z0-9_.]+",
    model="[a-z0-9_.]+",
    kernel="[a-z0-9_.]+",
    features="[a-z0-9_.]+",
