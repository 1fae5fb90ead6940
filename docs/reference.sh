#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the reference of the Swift modules from their comments, and fails on the first warning.
#
#     docs/reference.sh [DIRECTORY]     .build/reference, if not given
#
# It leaves one archive for each module, and the symbols with their comments that it was made from.
# HEAPTAP_MODULES names a directory of modules that are built already.
set -eu
cd "$(dirname "$0")/.."
swift=${SWIFT:-swift}
output=${1:-.build/reference}

modules=${HEAPTAP_MODULES:-}
if [ -z "$modules" ]; then
  $swift build -q --target HeaptapTesting
  modules=$($swift build --show-bin-path)/Modules
fi
# The service is only compiled for who asks for it, as this package does.
$swift build -q --package-path Examples/TracedService
service=$($swift build --package-path Examples/TracedService --show-bin-path)/Modules

# Usage: reference MODULE DIRECTORY OPTION…
reference() {
  module=$1
  built=$2
  shift 2
  symbols=$output/$module.symbols
  rm -rf "$symbols" "$output/$module.doccarchive"
  mkdir -p "$symbols"
  for library in Sources/C*/module.modulemap; do set -- "$@" -I "${library%/*}"; done
  swift-symbolgraph-extract -module-name "$module" -I "$built" \
    -target "$($swift -print-target-info | sed -n 's/.*"unversionedTriple": "\(.*\)".*/\1/p' | head -n 1)" \
    -minimum-access-level public -skip-synthesized-members -output-dir "$symbols" "$@"
  docc convert "Sources/$module/$module.docc" --additional-symbol-graph-dir "$symbols" \
    --fallback-display-name "$module" --fallback-bundle-identifier "heaptap.$module" \
    --warnings-as-errors --output-dir "$output/$module.doccarchive"
}

# What snapshots consist of is a module of its own, which nobody has to import.
reference Heaptap "$modules" -experimental-allowed-reexported-modules=HeapModel
reference HeaptapTesting "$modules"
reference HeaptapService "$service"
