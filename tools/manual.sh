#!/bin/sh
# Writes the manual pages and what shells complete, as releases have them, made by the
# command itself: tools/manual.sh FOLDER
set -eu
mkdir -p "$1/man" "$1/completions"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
rm -f "$out"/man/*
go test ./cmd/tensorpress -count=1 -run '^TestManual$' -man "$out/man"
gzip -9n "$out"/man/*.1
go build -o "$out/tensorpress" ./cmd/tensorpress
for shell in bash zsh fish; do
	"$out/tensorpress" completion $shell >"$out/completions/tensorpress.$shell"
done
rm "$out/tensorpress"
