#!/bin/bash
# boot-matrix.sh - a stock Linux guest in every mode, with 1 and 4 vCPUs, from an
# initial RAM disk and from a virtio disk: 12 boots, two at a time.
#
#   boot-matrix.sh SIESTA OUTDIR
#
# OUTDIR: make-root.sh's, made with -d. Prints 'ok' or 'not ok' and what was booted;
# ends with the number of those that did not come to their end. Multi-threaded TCG
# loses a kernel now and then, so that what is left is booted again, four times at most.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ $# != 2 ]; then
  sed -n '2,/^set -eu/{/^#/p}' "$0" >&2
  exit 2
fi
siesta=$(readlink -f "$1")
out=$(readlink -f "$2")
kernel=$("$here/nested-host.sh" -K)

boot='
  one() { # mode, CPUs, root
    name=$1-$2-$3; disk=; root=
    case " $DONE " in *" $name "*) return;; esac
    if [ "$3" = disk ]; then
      cp "$OUT/root.img" "/tmp/$name.img"
      disk="--disk /tmp/$name.img"; root="siesta.root=/dev/vda"
    fi
    timeout 150 "$SIESTA" run --kernel "$KERNEL/vmlinux" --initrd "$OUT/root.cpio" --memory 256M \
      --timers "$1" --cpus "$2" $disk --cmdline "console=ttyS0 quiet mitigations=off nokaslr \
      cryptomgr.notests=1 $root siesta.run=/tests/where.sh" >"/tmp/$name.out" 2>&1
    if [ $? = 0 ] && grep -q "^where $2 $3" "/tmp/$name.out"; then echo "ok $name"
    else echo "not ok $name"; tail -n 5 "/tmp/$name.out"; fi
  }
  row() { for mode in kernel thread migrate; do one $mode 1 "$1"; one $mode 4 "$1"; done; }
  row initrd & row disk & wait'
: >"$out/boot-matrix"
booted() { sed -n 's/^ok //p' "$out/boot-matrix" | tr '\n' ' '; }
for _ in 1 2 3 4; do
  [ "$(booted | wc -w)" = 12 ] && break
  "$here/nested-host.sh" -t 300 -e "DONE=$(booted)" -e "SIESTA=$siesta" -e "OUT=$out" -e "KERNEL=$kernel" -s "$boot" |
    tee -a "$out/boot-matrix" || :
done
exit $((12 - $(booted | wc -w)))
