"""Modules of what a model's dictionary or file names.

Models are built by name: a rule that builds one imports this module, and so runs again
when their code changes.
"""

import lode.baselines
import lode.bases
import lode.expansion
import lode.fields
import lode.invariants
import lode.kernels
import lode.sparse  # noqa: F401
