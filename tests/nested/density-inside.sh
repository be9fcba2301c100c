#!/bin/bash
# density-inside.sh - what density.sh runs in the emulated host: idle Linux guests
# and a busy one, in one mode, with the trace on for a while once all are idle.
#
#   density-inside.sh SIESTA KERNEL INITRD MODE GUESTS SECONDS
#
# Prints 'locs N' (the idle guests' timer interrupts in that time) and 'seconds N'.
set -eu
siesta=$1 kernel=$2 initrd=$3 mode=$4 guests=$5 secs=$6
trace=/sys/kernel/tracing
echo 0 >$trace/tracing_on
# Entering a vCPU from another thread waits for an RCU grace period before Linux 6.13.
echo 1 >/sys/kernel/rcu_expedited
work=$(mktemp -d)
common='console=ttyS0 quiet mitigations=off nokaslr cryptomgr.notests=1 siesta.modules=none'
pids=()
quit() {
  if [ "$mode" = qemu ]; then kill "${pids[@]}" 2>/dev/null
  else "$siesta" ctl --control "$work/control" quit >/dev/null 2>&1; fi || :
  wait
  rm -rf "$work"
}
trap quit EXIT

qemu() { # name, script
  qemu-system-x86_64 -name guest,debug-threads=on -M microvm,rtc=on -accel kvm,kernel-irqchip=on -cpu host -m 128 -nodefaults \
    -no-user-config -nographic -serial "file:$work/$1" -kernel "$kernel" -initrd "$initrd" \
    -append "$common siesta.run=/tests/$2.sh" &
  pids+=($!)
}
if [ "$mode" = qemu ]; then
  for ((n = 0; n < guests; n++)); do qemu "idle.$n" idle; done
  qemu busy busy
else
  cat >"$work/config" <<CONFIG
[[vm]]
name = "idle"
count = $guests
kernel = "$kernel"
initrd = "$initrd"
memory = "128M"
served-share = 100
serial = "$work/idle"
cmdline = "$common siesta.run=/tests/idle.sh"
[[vm]]
name = "busy"
kernel = "$kernel"
initrd = "$initrd"
memory = "128M"
served-share = 100
serial = "$work/busy"
cmdline = "$common siesta.run=/tests/busy.sh"
CONFIG
  options=(--timers "$mode")
  [ "$mode" != migrate ] || options+=(--inline force --borrow-share 100 --borrow-limit 1s --lateness-goal 10s)
  "$siesta" serve --control "$work/control" --config "$work/config" "${options[@]}" &
fi

up() { { grep -l '^siesta-guest: up' "$work"/idle.* "$work/busy" 2>/dev/null || :; } | wc -l; }
while [ "$(up)" -le "$guests" ]; do sleep 1; done
# What a kernel puts off at boot is done by then, and each has told its count once.
sleep 30

# The interrupts that each idle guest had told of, and when, in guest time.
told() { for each in "$work"/idle.*; do grep '^loc ' "$each" | tr -d '\r' | tail -n 1; done; }
told >"$work/before"
echo 1 >$trace/tracing_on
sleep "$secs"
echo 0 >$trace/tracing_on
sleep 22
told >"$work/after"
# Who served whom, for whoever wants to know more.
[ "$mode" = qemu ] || "$siesta" stats --socket "$work/control" >&2 || :
# Per second of guest time, times the seconds traced: what they had while the trace was on.
paste "$work/before" "$work/after" | awk -v secs="$secs" '
  $5 > $2 { sum += ($6 - $3) / ($5 - $2) * secs; guests++ }
  END { printf "locs %d\nguests %d\nseconds %d\n", sum, guests, secs }'
