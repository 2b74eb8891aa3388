#!/usr/bin/env bash
# Install tag2mask and the tested versions of its dependencies into a new virtual environment:
#   deploy/install.sh FOLDER [cuda|cpu]
# cuda: torch from PyPI, whose CUDA libraries take 4 GB. cpu: torch without them.
# Needs Python 3.11 or newer with venv (PYTHON=python3.12 chooses one) and a C++ compiler; root is not needed.
# EXTRAS chooses the extras of pyproject.toml, TORCH_CPU_INDEX a mirror of PyTorch's index of CPU wheels.
set -euo pipefail

folder=${1:?usage: deploy/install.sh FOLDER [cuda|cpu]}
kind=${2:-cuda}
extras=${EXTRAS-export,gcs,azure}
source=$(cd "$(dirname "$0")/.." && pwd)

case $kind in cuda | cpu) ;; *) echo "error: '$kind' is neither cuda nor cpu" >&2; exit 2 ;; esac

pip() {
  "$folder/bin/python" -m pip --quiet --disable-pip-version-check install --constraint "$source/constraints.txt" "$@"
}

"${PYTHON:-python3}" -m venv "$folder"
if [ "$kind" = cpu ]; then
  # only these two from that index: it mirrors other packages, but not the versions of constraints.txt
  pip --no-deps --index-url "${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}" torch torchvision
fi
pip "$source${extras:+[$extras]}"
