#!/bin/bash
# cyclic.sh - cyclictest in a stock Linux guest, in each timer mode in turn, on one
# emulated host (or on this machine's own KVM, with -n).
#
#   cyclic.sh [-n] [-r ROUNDS] SIESTA OUTDIR
#
#   -n         no emulated host: this machine's own KVM (VMX or SVM)
#   -r ROUNDS  how often each mode is measured (default 3)
#
# OUTDIR: make-root.sh's, made with -r. Prints the median of the means in microseconds, their
# spread, and the ratio to mode kernel's. On the emulated host only the ratios mean anything.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
usage() { sed -n '2,/^set -eu/{/^#/p}' "$0" >&2; exit 2; }
rounds=3 nested=1
while getopts 'nr:' o; do
  case $o in
    n) nested=0;; r) rounds=$OPTARG;; *) usage;;
  esac
done
shift $((OPTIND - 1))
[ $# = 2 ] || usage
siesta=$(readlink -f "$1")
out=$(readlink -f "$2")
kernel=$("$here/nested-host.sh" -K)/vmlinux

measure() {
  for _ in $(seq "$rounds"); do
    for mode in kernel thread migrate; do
      timeout 100 "$siesta" run --timers $mode --memory 256M --kernel "$kernel" --initrd "$out/root-rt.cpio" \
        --cmdline 'console=ttyS0 quiet pci=off mitigations=off nokaslr cryptomgr.notests=1 siesta.modules=none siesta.run=/tests/cyclic.sh' \
        2>&1 | tr -d '\r' | sed -n "s/^fact cyclictest/$mode/p; s/^not ok/$mode not ok/p"
    done
  done
}
if [ $nested = 1 ]; then
  script=$(declare -p rounds siesta kernel out; declare -f measure; echo measure)
  "$here/nested-host.sh" -t 900 -s "$script" >"$out/cyclic"
else
  measure >"$out/cyclic"
fi
grep 'not ok' "$out/cyclic" && exit 1
for mode in kernel thread migrate; do
  [ "$(grep -c "^$mode " "$out/cyclic")" = "$rounds" ] ||
    { echo "cyclic: not all rounds of mode $mode came to their ends" >&2; exit 1; }
done
for mode in kernel thread migrate; do
  sed -n "s/^$mode //p" "$out/cyclic" | sort -n -k 2,2 | awk -v mode=$mode '
    { least = !NR || NR == 1 || $1 < least ? $1 : least; mean[NR] = $2; most = $3 > most ? $3 : most }
    END { if (NR) print mode, mean[int((NR + 1) / 2)], mean[1], mean[NR], least, most }'
done | awk '
  NR == 1 { printf "%-10s %8s %8s %8s %8s %8s %7s\n", "us", "mean", "least", "most", "minimum", "maximum", "ratio"; base = $2 }
  { printf "%-10s %8d %8d %8d %8d %8d %7.2f\n", $1, $2, $3, $4, $5, $6, $2 / base }'
