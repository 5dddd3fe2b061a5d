#!/bin/sh
# Submits an array that writes the parts, and the job that finishes once all of it went well:
#
#   ./submit.sh PARTS SOURCE DEST [options of tensorpress quantize]
#
# Partition, account, time and the like are said as sbatch reads them, in SBATCH_PARTITION
# and its kin, or in the two scripts.
set -eu
if [ $# -lt 3 ]; then
	echo "usage: $0 PARTS SOURCE DEST [options of tensorpress quantize]" >&2
	exit 2
fi
here=$(dirname "$0")
parts=$1 dest=$3
shift
array=$(sbatch --parsable --array="1-$parts" "$here/part.sbatch" "$@")
array=${array%%;*} # a federation adds the cluster
force=
for option; do
	if [ "$option" = --force ]; then force=--force; fi
done
finish=$(sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes "$here/finish.sbatch" "$dest" $force)
echo "parts: job $array, tasks 1 to $parts; finish: job ${finish%%;*}"
