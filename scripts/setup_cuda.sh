#!/usr/bin/env bash
# Brings what `cargo build --features cuda` needs to a machine without a CUDA installation or a GPU: the compiler,
# headers and libraries of CUDA 13.0 from PyPI (about 1.2 GB), and a stand-in for the driver to link against.
#
#   scripts/setup_cuda.sh FOLDER
#   source FOLDER/env.sh
#   cargo build --release --features cuda      # CUDA_COMPUTE_CAP=80 for other cards than H100 and H200
#
# The compiler and its headers alone (about 270 MB) will do where kernels are compiled and nothing is linked:
#
#   scripts/setup_cuda.sh --compiler-only FOLDER
#   source FOLDER/env.sh
#   cargo test --release --test kernels_compiled
#
# What is built starts only where a driver is installed. A run on a GPU needs the libraries in
# FOLDER/nvidia/cu13/lib, or those of a CUDA 13 installation, on LD_LIBRARY_PATH.
set -euo pipefail

compiler=(
  nvidia-cuda-nvcc==13.0.88     # the compiler's driver
  nvidia-nvvm==13.0.88          # its back end
  nvidia-cuda-crt==13.0.88      # what it includes by itself
  nvidia-cuda-cccl==13.0.85     # headers of the C++ library
  nvidia-cuda-runtime==13.0.96  # cuda.h, half and bfloat16, libcudart
)
libraries=(
  nvidia-cuda-nvrtc==13.0.88
  nvidia-cublas==13.0.2.14
  nvidia-curand==10.4.5.25
)

packages=("${compiler[@]}" "${libraries[@]}")
compiler_only=
if [ "${1-}" = --compiler-only ]; then
  compiler_only=yes
  packages=("${compiler[@]}")
  shift
fi
if [ $# -ne 1 ] || [ "${1#-}" != "$1" ]; then
  echo "usage: $0 [--compiler-only] FOLDER (about 1.2 GB are written to it, or 270 MB)" >&2
  exit 2
fi
mkdir -p "$1"
folder=$(cd "$1" && pwd)
python3 -m pip install --quiet --no-deps --upgrade --root-user-action=ignore --target "$folder" "${packages[@]}"
toolkit=$folder/nvidia/cu13

cat >"$folder/env.sh" <<ENV
export CUDA_HOME='$toolkit' CUDA_PATH='$toolkit' CUDA_ROOT='$toolkit' CUDA_TOOLKIT_ROOT_DIR='$toolkit'
export NVCC='$toolkit/bin/nvcc'
export PATH='$toolkit/bin':"\$PATH"
ENV
"$toolkit/bin/nvcc" --version | tail -n 2
if [ -n "$compiler_only" ]; then
  echo "source $folder/env.sh"
  exit
fi

# Wheels hold libraries under the names that programs load; linkers look for them without a version.
find "$toolkit/lib" -maxdepth 1 -name 'lib*.so.*' ! -name '*.alt.*' -printf '%f\n' | while read -r library; do
  ln -sfn "$library" "$toolkit/lib/${library%%.so.*}.so"
done
ln -sfn lib "$toolkit/lib64"

# Only a driver's installation has libcuda. Whoever links needs its names, and nothing behind them.
stand_in=$folder/driver
mkdir -p "$stand_in"
{
  grep -ohE '\bcu[A-Z][A-Za-z0-9]*(_v[0-9]+)?(_ptsz|_ptds)?\b' "$toolkit"/include/{cuda,cudaTypedefs}.h
  printf '%s\n' cuProfilerStart cuProfilerStop # of a header that no wheel above has
} | sort -u | awk '{ print "int " $0 "(void) { return 999; }" }' >"$stand_in/libcuda.c"
"${CC:-cc}" -w -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$stand_in/libcuda.so" "$stand_in/libcuda.c"

cat >>"$folder/env.sh" <<ENV
export LIBRARY_PATH='$toolkit/lib:$stand_in'"\${LIBRARY_PATH:+:\$LIBRARY_PATH}"
export CUDA_COMPUTE_CAP="\${CUDA_COMPUTE_CAP:-90}"
ENV
echo "source $folder/env.sh"
