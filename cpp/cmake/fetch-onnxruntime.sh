#!/usr/bin/env bash
# Put ONNX Runtime's headers and library (Linux x64) where there are none.
#
#   fetch-onnxruntime.sh DIR [PYTHON]
#
# Then configure with -DONNXRUNTIME_ROOT=DIR. The headers come from a package of the npm registry, of
# which this script knows the SHA-256. The library is the one of PYTHON's onnxruntime package if that
# is installed, so that both sides run the same; otherwise it is the npm package's. Says on stderr
# what comes from where; does nothing if DIR is complete already.
set -euo pipefail
package=com.github.asus4.onnxruntime@0.4.9
sha256=e59788788818fdde1b2e522e766a21ba0f7d8391de55737abf81e32cc801785d
headers='package/Plugins/iOS~/onnxruntime.xcframework/ios-arm64/onnxruntime.framework/Headers'
library=package/Plugins/Linux/x64/libonnxruntime.so

[ $# -ge 1 ] || { sed -n '2,9s/^# \?//p' "$0" >&2; exit 2; }
dir=$1
python=${2:-python3}
[ -e "$dir/lib/libonnxruntime.so.1" ] && [ -e "$dir/include/onnxruntime_c_api.h" ] && exit 0
command -v npm >/dev/null || { echo "npm is needed to fetch the headers" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent "$package" >/dev/null)
echo "$sha256  $(echo "$work"/*.tgz)" | sha256sum --check --quiet || {
    echo "$package is not the package that it was: nothing is taken from it" >&2
    exit 1
}
tar -xzf "$work"/*.tgz -C "$work" "$headers" "$library"
mkdir -p "$dir/include" "$dir/lib"
cp "$work/$headers"/*.h "$dir/include/"
echo "$dir/include: from npm's $package, SHA-256 $sha256" >&2

wheel=$("$python" - <<'PY' 2>/dev/null || true
import importlib.util, pathlib
spec = importlib.util.find_spec("onnxruntime")
print(next(pathlib.Path(spec.origin).parent.glob("capi/libonnxruntime.so.*")))
PY
)
cp "${wheel:-$work/$library}" "$dir/lib/libonnxruntime.so.1"
ln -sf libonnxruntime.so.1 "$dir/lib/libonnxruntime.so"
echo "$dir/lib/libonnxruntime.so.1: from ${wheel:-the same package}" >&2
