#!/usr/bin/env bash
# The newest release for this machine among the files of a folder and of the folders in it, or nothing.
#   molecule/shared/newest.sh <folder> '<its name as an extended regular expression>'
# VERSION and ARCH stand for three numbers and for amd64 or arm64.
set -euo pipefail

machine=$(uname -m)
case $machine in
    x86_64) machine=amd64 ;;
    aarch64) machine=arm64 ;;
esac
version='[0-9]+\.[0-9]+\.[0-9]+'
name=${2//VERSION/$version}
name=${name//ARCH/$machine}
# By the version, whatever is before it in the name or the path. A folder that is not there yet has nothing.
{ find "$1" -maxdepth 2 -regextype posix-extended -regex ".*/$name" 2>/dev/null || true; } |
    sed -E "s#^.*/[^/]*[^0-9/]($version)[^/]*\$#\1 &#" | sort -V | tail -n 1 | cut -d ' ' -f 2-
