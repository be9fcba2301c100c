#!/bin/bash
# boot-times.sh - how long a stock Linux guest takes from the start of its VMM to
# the first line of its init, with siesta in each timer mode and with QEMU's microvm, on the
# same emulated host (or on this one, with -n).
#
#   boot-times.sh [-n] [-r ROUNDS] SIESTA
#
#   SIESTA     the program; a release build is the fair one
#   -n         no emulated host: this machine's own KVM (VMX or SVM)
#   -r ROUNDS  how often each is measured; they take turns (default 3)
#
# Prints a table: median, least and most seconds, and the ratio of the medians to
# that of QEMU with a PIT, which is its faster way. On the emulated host only the ratios mean anything.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
rounds=3 nested=1
while getopts 'nr:' o; do
  case $o in
    n) nested=0;; r) rounds=$OPTARG;; *) sed -n '2,/^set -eu/{/^#/p}' "$0" >&2; exit 2;;
  esac
done
shift $((OPTIND - 1))
[ $# = 1 ] && [ -x "$1" ] || { sed -n '2,/^set -eu/{/^#/p}' "$0" >&2; exit 2; }
siesta=$(readlink -f "$1")
root=$(mktemp -d "${TMPDIR:-/tmp}/boot-times.XXXXXX")
trap 'rm -rf "$root"' EXIT
kernel=$("$here/make-root.sh" "$root")/vmlinux

measure() { # printed as 'NAME SECONDS', by whichever machine runs this
  cmdline='console=ttyS0 quiet pci=off mitigations=off nokaslr cryptomgr.notests=1'
  boot() {
    local name=$1 began up=
    shift
    rm -f /tmp/boot-times.out
    mkfifo /tmp/boot-times.out
    began=$(date +%s%N)
    timeout 100 "$@" </dev/null >/tmp/boot-times.out 2>&1 &
    up=$({ grep -m 1 -q '^siesta-guest: up' && date +%s%N; cat >/dev/null; } </tmp/boot-times.out)
    wait $! || up=
    rm /tmp/boot-times.out
    if [ -n "$up" ]; then echo "$name $(((up - began) / 1000000))"; else echo "$name failed"; fi
  }
  for _ in $(seq "$rounds"); do
    for mode in kernel thread migrate; do
      boot "siesta-$mode" "$siesta" run --kernel "$kernel" --initrd "$root/root.cpio" \
        --memory 256M --timers $mode --cmdline "$cmdline"
    done
    for pit in on off; do
      boot "qemu-microvm-pit-$pit" qemu-system-x86_64 -M "microvm,pit=$pit" \
        -accel kvm,kernel-irqchip=on -cpu host -m 256 -nodefaults -no-user-config -display none \
        -serial stdio -monitor none -no-reboot -kernel "$kernel" -initrd "$root/root.cpio" \
        -append "$cmdline reboot=t"
    done
  done
}

if [ $nested = 1 ]; then
  script=$(declare -p rounds siesta kernel root; declare -f measure; echo measure)
  "$here/nested-host.sh" -t 900 -s "$script" | tee /dev/stderr >"$root/figures"
else
  measure >"$root/figures"
fi
awk '
  $2 == "failed" { failed[$1]++; order[$1] = order[$1] ? order[$1] : ++n; name[order[$1]] = $1; next }
  { order[$1] = order[$1] ? order[$1] : ++n; name[order[$1]] = $1; v[$1, ++c[$1]] = $2 / 1000 }
  function sorted(k,   i, j, t) {
    for (i = 2; i <= c[k]; i++)
      for (j = i; j > 1 && v[k, j - 1] > v[k, j]; j--) {
        t = v[k, j]; v[k, j] = v[k, j - 1]; v[k, j - 1] = t
      }
  }
  function median(k) { sorted(k); return c[k] ? v[k, int((c[k] + 1) / 2)] : 0 }
  END {
    base = median("qemu-microvm-pit-on")
    printf "%-22s %8s %8s %8s %7s\n", "", "median s", "least", "most", "ratio"
    for (i = 1; i <= n; i++) {
      k = name[i]; m = median(k)
      if (!c[k]) { printf "%-22s failed\n", k; continue }
      printf "%-22s %8.2f %8.2f %8.2f %7s%s\n", k, m, v[k, 1], v[k, c[k]],
        base ? sprintf("%.2f", m / base) : "-", failed[k] ? "  (" failed[k] " failed)" : ""
    }
  }' "$root/figures"
