#!/bin/sh
# Builds disk-report from cmd/disk-report.
#
#   build.sh [FOLDER] [ARCH...]    default: build beside this script, amd64 and arm64
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/build}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- amd64 arm64
mkdir -p "$out"
out=$(cd "$out" && pwd)

cd "$here/.."
for arch in "$@"; do
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath -buildvcs=false -ldflags '-s -w' \
		-o "$out/linux-$arch/bin/disk-report" ./cmd/disk-report
done
