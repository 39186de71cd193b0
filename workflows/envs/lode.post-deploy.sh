#!/usr/bin/env bash
# Snakemake runs this in the new environment, from the folder of the workflow.
set -euo pipefail
pip install --editable ".[workflow]"
