#!/bin/bash
# io.sh - a stock Linux guest's virtio devices under load, power-off and resets in the
# middle of it, and all ways to end and sleep, in the emulated host.
#
#   io.sh [-m MODES] [-p PARTS] [-f] [-t SECONDS] SIESTA OUTDIR
#
#   -m  'kernel thread migrate'
#   -p  'devices inflight reboots power' (the default), one or more
#   -f  all of it: 1 GiB each way through the socket, 20,000 block operations, floods of 10,000
#       pings, 100 resets; without, a smaller dose of each
#   -t  wall-clock limit of each part and mode (300; with -f 2400)
#
# OUTDIR: make-root.sh's, made with -i. Prints 'ok NAME' and 'not ok NAME: WHY'; its status is how
# many parts failed. Multi-threaded TCG loses a kernel now and then, or leaves the
# emulated host standing: such a part is run again, twice at most, and all of it is shown.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
usage() { sed -n '2,/^set -eu/{/^#/p}' "$0" >&2; exit 2; }
modes='kernel thread migrate' parts='devices inflight reboots power' dose='16 2000 500 3' limit=
while getopts 'm:p:ft:' o; do
  case $o in
    m) modes=$OPTARG;; p) parts=$OPTARG;; t) limit=$OPTARG;;
    f) dose='1024 20000 10000 100'; : "${limit:=2400}";;
    *) usage;;
  esac
done
shift $((OPTIND - 1))
[ $# = 2 ] || usage
siesta=$(readlink -f "$1")
out=$(readlink -f "$2")
kernel=$("$here/nested-host.sh" -K)
failed=0

one() { # mode, part
  # shellcheck disable=SC2086
  "$here/nested-host.sh" -t "${limit:-300}" -- "$here/io-inside.sh" "$siesta" "$kernel/vmlinux" "$out" \
    "$2" "$1" $dose >"$out/io.$1.$2" 2>&1
}
for mode in $modes; do
  for part in $parts; do
    status=1
    for try in 1 2 3; do
      if one "$mode" "$part"; then status=0; else status=$?; fi
      # Its host has not come to the end, or has lost a kernel: nobody knows what that says of siesta. All else
      # is siesta's until it is explained.
      [ $status = 124 ] || [ $status = 125 ] || grep -q 'TASK stack guard page' "$out/io.$mode.$part" || break
      echo "io: $mode $part: status $status, try $try:"
      sed "s/^/$mode, try $try: /" "$out/io.$mode.$part"
    done
    sed "s/^/$mode: /" "$out/io.$mode.$part"
    [ $status = 0 ] || failed=$((failed + 1))
  done
done
exit $failed
