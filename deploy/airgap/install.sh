#!/usr/bin/env bash
# Install from the folder that this file lies in, and nothing else: install.sh ENVIRONMENT
set -euo pipefail
environment=$(realpath --canonicalize-missing "${1:?usage: install.sh ENVIRONMENT}")
cd "$(dirname "${BASH_SOURCE[0]}")"
sha256sum --check --quiet SHA256SUMS
"${PYTHON:-python3}" -m venv "$environment"
"$environment/bin/python" -m pip --quiet --disable-pip-version-check --isolated \
  install --no-index --no-deps wheels/*.whl
echo "installed; start it with: $environment/bin/sensefield serve"
