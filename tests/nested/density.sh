#!/bin/bash
# density.sh - what idle Linux guests cost their host, by the host's own trace points.
#
#   density.sh [-n GUESTS] [-s SECONDS] [-m MODES] SIESTA OUTDIR
#
# For each mode (default 'kernel thread migrate qemu') boots GUESTS (8) idle guests
# and a busy one in the emulated host, traces SECONDS (20) of it, and prints a
# table. OUTDIR: make-root.sh's, where the traces are kept too. `migrate` runs with
# --inline force, and --borrow-share 100. Times inside mean nothing, counts do.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
usage() { sed -n '2,/^set -eu/{/^#/p}' "$0" >&2; exit 2; }
guests=8 secs=20 modes='kernel thread migrate qemu'
while getopts 'n:s:m:' o; do
  case $o in
    n) guests=$OPTARG;; s) secs=$OPTARG;; m) modes=$OPTARG;; *) usage;;
  esac
done
shift $((OPTIND - 1))
[ $# = 2 ] || usage
siesta=$(readlink -f "$1")
out=$(readlink -f "$2")
kernel=$("$here/nested-host.sh" -K)

count() { # trace file: what is counted, a line each
  awk '
    / sched_wakeup: / {
      comm = $0; sub(/.*comm=/, "", comm); sub(/ pid=.*/, "", comm)
      # Siesta names the threads of vCPUs VM/NUMBER, QEMU CPU NUMBER/KVM.
      if (comm ~ /^(idle|busy).*\/[0-9]+$/ || comm ~ /^CPU [0-9]+\/KVM$/) vcpu++
      else other++
    }
    / hrtimer_expire_entry: / { timers++ }
    / cpu_idle: / && !/state=4294967295/ { idle++ }
    END {
      print "vcpu_wakeups", vcpu + 0; print "other_wakeups", other + 0
      print "timers", timers + 0; print "idle_entries", idle + 0
    }' "$1"
}

trace() { # mode
  "$here/nested-host.sh" -t 300 -m 6144 -b 81920 \
    -T sched:sched_wakeup,timer:hrtimer_expire_entry,power:cpu_idle -o "$out/trace.$1" \
    -- "$here/density-inside.sh" "$siesta" "$kernel/vmlinux" "$out/root.cpio" "$1" "$guests" "$secs" \
    >"$out/density.$1" 2>"$out/density.$1.err"
}
for mode in $modes; do
  # Multi-threaded TCG loses a kernel now and then.
  trace "$mode" || trace "$mode" || trace "$mode" ||
    { echo "density: $mode: status $?" >&2; tail -n 20 "$out/density.$mode.err" >&2; continue; }
  count "$out/trace.$mode" >>"$out/density.$mode"
done

echo "$guests idle Linux guests and a busy one in an emulated host of 2 CPUs; events a second"
printf '%-10s %14s %14s %14s %14s %14s\n' mode 'vCPU wakeups' 'other wakeups' 'timer expiries' 'idle entries' 'guests LOC'
for mode in $modes; do
  [ -s "$out/density.$mode" ] || continue
  awk -v mode="$mode" '
    { v[$1] = $2 }
    function per(name) { return v[name] / v["seconds"] }
    END {
      if (v["seconds"]) printf "%-10s %14.1f %14.1f %14.1f %14.1f %14.1f\n", mode, per("vcpu_wakeups"),
        per("other_wakeups"), per("timers"), per("idle_entries"), per("locs")
    }' "$out/density.$mode"
done
