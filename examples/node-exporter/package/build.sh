#!/bin/sh
# Builds node_exporter at the version, and from the bytes, that source/go.mod and
# source/go.sum pin, through the Go module proxy.
#
#   build.sh [FOLDER] [ARCH...]    default: build beside this script, amd64 and arm64
#
# GO_BUILD_FLAGS is given to go build. Needs Go, nothing else.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/build}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- amd64 arm64
mkdir -p "$out"
out=$(cd "$out" && pwd)

module=github.com/prometheus/node_exporter
cd "$here/source"
version=$(go list -m -f '{{.Version}}' $module)
licence=$(go list -m -f '{{.Dir}}' $module)
for arch in "$@"; do
	dir=$out/linux-$arch
	mkdir -p "$dir/bin" "$dir/share"
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false \
		-ldflags "-s -w -X github.com/prometheus/common/version.Version=${version#v}" ${GO_BUILD_FLAGS:-} \
		-o "$dir/bin/node_exporter" $module
	cp "$licence/LICENSE" "$licence/NOTICE" "$dir/share/"
	chmod 0644 "$dir/share/LICENSE" "$dir/share/NOTICE"
done
