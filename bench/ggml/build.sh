#!/bin/sh
# Builds ggml's shared libraries for this machine into build/ggml, from the sources that llama-cpp-python carries.
# Needs pip, cmake, ninja and a C++ compiler; takes a minute or two. usage: bench/ggml/build.sh [llama-cpp-python's version]
set -eu
version=${1:-0.3.36}
out=$(cd "$(dirname "$0")/../.." && pwd)/build/ggml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m pip download -q --no-deps --no-binary llama-cpp-python -d "$work" "llama-cpp-python==$version"
tar xf "$work"/llama_cpp_python-*.tar.gz -C "$work"
cmake -S "$work/llama_cpp_python-$version/vendor/llama.cpp" -B "$work/made" -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DBUILD_SHARED_LIBS=ON -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_COMMON=OFF \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF > "$work/log" ||
  { cat "$work/log"; exit 1; }
ninja -C "$work/made" ggml ggml-base ggml-cpu > "$work/log" || { tail -n 40 "$work/log"; exit 1; }
mkdir -p "$out"
find "$work/made" -name 'libggml*.so*' -exec cp -a {} "$out" \;
echo "ggml is in $out"
