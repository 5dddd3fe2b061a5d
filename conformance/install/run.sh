#!/bin/sh
# Installs wheels on machines that have Python and nothing else, and runs the README's
# first command there: conformance/install/run.sh DIST [amd64|arm64]…
# DIST is what tools/wheels.py made. As root, on Debian; README.md says what it needs.
set -eu
dist=$(cd "$1" && pwd)
shift
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
first=$(grep -m1 -o 'tensorpress quantize testdata/.*' "$root/README.md")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

# foreign lets Linux run programs of arm64 by way of qemu, until the script ends.
foreign() {
	if [ "$(uname -m)" = aarch64 ] || [ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
		return
	fi
	[ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
	printf '%s' ':qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F' >/proc/sys/fs/binfmt_misc/register
	trap 'echo -1 >/proc/sys/fs/binfmt_misc/qemu-aarch64; rm -rf "$work"' EXIT
}

# machine makes one with Python alone, copies what it tries, and tries it. The foreign one has
# the files of the packages, and none of their scripts run, which take an hour by way of qemu.
machine() {
	wheel=$(ls "$dist"/*manylinux*"_$2".whl)
	if [ "$1" = "$(dpkg --print-architecture)" ]; then
		set -- "$@" --variant=minbase --include=python3-venv,python3-pip
	else
		set -- "$@" --variant=extract --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
			--include=python3-venv,python3-pip,dash,coreutils,grep,base-files
	fi
	mmdebstrap --quiet --architectures="$1" "$3" "$4" ${5:+"$5"} bookworm "$work/$1"
	cp "$wheel" "$here/inside.sh" "$work/$1/root/"
	cp -r "$root/testdata" "$work/$1/root/testdata"
	env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$work/$1" sh /root/inside.sh "$first"
	rm -rf "${work:?}/$1"
}

# bare runs the program where there is no file but itself and the model: no C library, no
# shell, no /proc, no /tmp.
bare() {
	mkdir -p "$work/bare/testdata"
	unzip -qjo "$(ls "$dist"/*manylinux*"_$2".whl)" '*/scripts/tensorpress' -d "$work/bare"
	cp "$root/testdata/minilm.safetensors" "$work/bare/testdata/"
	# shellcheck disable=SC2086 # it is a line of words
	env -i PATH=/usr/sbin:/usr/bin chroot "$work/bare" /$first
	rm -rf "$work/bare"
}

[ $# -gt 0 ] || set -- amd64 arm64
for architecture in "$@"; do
	machine=x86_64
	if [ "$architecture" = arm64 ]; then
		machine=aarch64
		foreign
	fi
	printf '\n== Debian and Python, %s\n' "$architecture"
	machine "$architecture" "$machine"
	printf '\n== nothing but the program, %s\n' "$architecture"
	bare "$architecture" "$machine"
done
