#!/bin/bash
# io-inside.sh - what io.sh runs in the emulated host (or you, as root, on a real one):
# a stock Linux guest with every virtio device under load, and how guests come to
# their ends, in one process that has to be as it was before.
#
#   io-inside.sh SIESTA KERNEL OUTDIR PARTS [MODE [MIB OPERATIONS PINGS REBOOTS]]
#
# PARTS: of 'devices inflight reboots power'. OUTDIR: of make-root.sh -i. Prints 'ok NAME' and
# 'not ok NAME: WHY', and the guests' own lines; its status is how many were not ok.
set -u
siesta=$1 kernel=$2 out=$3 parts=$4 mode=${5:-migrate}
mib=${6:-16} operations=${7:-2000} pings=${8:-500} reboots=${9:-3}
net=siesta-io
work=$(mktemp -d)
control=$work/control
failures=0
common="console=ttyS0 quiet pci=off mitigations=off nokaslr cryptomgr.notests=1 panic=-1"

good() { echo "ok $1"; }
bad() { echo "not ok $1: $2"; failures=$((failures + 1)); }
works() { # name, command
  local name=$1 told
  shift
  if told=$("$@" 2>&1); then good "$name"; else bad "$name" "status $? of $*: $(tail -n 2 <<<"$told")"; fi
}
ctl() { "$siesta" ctl --control "$control" "$@"; }
quit() {
  ctl quit >/dev/null 2>&1
  wait
  ip netns del "$net" 2>/dev/null
  rm -rf "$work"
}
trap quit EXIT

# ------------------------------------------------------------------ the process
tun=$(find "$(dirname "$kernel")/lib/modules" -name 'tun.ko*' -print -quit)
if [ ! -e /dev/net/tun ] && [ -n "$tun" ]; then
  xz -dc "$tun" >"$work/tun.ko" && busybox insmod "$work/tun.ko"
fi
ip netns add "$net" &&
  ip -n "$net" tuntap add dev tap0 mode tap &&
  ip -n "$net" addr add 10.9.0.1/24 dev tap0 &&
  ip -n "$net" link set tap0 up || { echo "io-inside: no network namespace with a tap interface" >&2; exit 99; }
ip netns exec "$net" "$siesta" serve --control "$control" --timers "$mode" --shutdown-timeout 60 2>"$work/log" &
for _ in $(seq 100); do [ -S "$control" ] && break; sleep 0.1; done
pid=$(pgrep -f "^$siesta serve --control $control")
[ -n "$pid" ] || { cat "$work/log" >&2; exit 99; }

# What a process has of what a VM may leave behind.
holdings() {
  printf 'descriptors %s threads %s maps %s\n' "$(ls "/proc/$pid/fd" | wc -l)" \
    "$(ls "/proc/$pid/task" | wc -l)" "$(grep -c guest "/proc/$pid/maps")"
}
# Some of it comes with the first VM, and stays.
ctl create --name first --image hello >/dev/null
for _ in $(seq 100); do ctl list | grep -E '^first ' | grep -q 'running' || break; sleep 0.1; done
before=$(holdings)

create() { # name, guest's words, options
  local name=$1 words=$2
  shift 2
  works "$name-starts" ctl create --name "$name" --kernel "$kernel" --initrd "$out/root-io.cpio" \
    --memory 192M --serial "$work/$name" --cmdline "$common $words" "$@"
}
# Waits for a line of a guest's, or its end.
line() { # name, text
  for _ in $(seq 6000); do
    grep -q "$2" "$work/$1" 2>/dev/null && return 0
    ctl list | grep -qE "^$1 .*(running|paused)" || { grep -q "$2" "$work/$1"; return; }
    sleep 0.1
  done
  return 1
}
ended() { # name: how, as `list` has it
  for _ in $(seq 1800); do
    ctl list | grep -E "^$1 " | grep -qE 'running|paused' || break
    sleep 0.1
  done
  ctl list | grep -E "^$1 "
}
expect_end() { # name, how
  local how
  how=$(ended "$1")
  case $how in *"$2"*) good "$1-ends";; *) bad "$1-ends" "not '$2' but '$how'";; esac
  # The last handles go with the thread that removes it.
  for _ in $(seq 50); do [ "$(holdings)" = "$before" ] && break; sleep 0.1; done
  if [ "$(holdings)" = "$before" ]; then good "$1-leaves-nothing"
  else bad "$1-leaves-nothing" "before $before, after $(holdings): $(ls -l "/proc/$pid/fd" | sed "s/.*-> //" | tr "\n" " ")"; fi
}
show() { # name
  grep -aE '^(ok|not ok|fact|blocks:|streams:|siesta-guest:) ' "$work/$1" | tr -d '\r'
  failures=$((failures + $(grep -c '^not ok ' "$work/$1")))
}

# ----------------------------------------------------------------------- devices
devices() {
  cp "$out/io/files.img" "$work/files.img"
  cp "$out/io/files.img" "$work/ro.img"
  truncate -s 64M "$work/scratch.img"
  timeout 1800 "$out/io/streams" unix-listen "$work/v.sock_1000" "$mib" >"$work/stream.1" 2>&1 &
  local first=$!
  create devices "siesta.run=/tests/io.sh siesta.mib=$mib siesta.operations=$operations siesta.pings=$pings" \
    --disk "$work/files.img" --disk "$work/scratch.img,direct" --disk "$work/ro.img,ro" --rng \
    --net tap=tap0 --vsock "cid=3,path=$work/v.sock" --virtio-console "$work/hvc" --balloon
  works a-locked-disk-is-refused sh -c "! '$siesta' run --image hello --disk '$work/files.img'"
  line devices '^siesta-guest: net' || { bad devices-come-to-the-network 'see below'; kill "$first"; }
  ip netns exec "$net" "$out/io/ping" -q -f -c "$pings" 10.9.0.2 >"$work/ping" 2>&1
  if grep -q ' 0% packet loss' "$work/ping"; then good net-flood-from-the-host
  else bad net-flood-from-the-host "$(tail -n 2 "$work/ping")"; fi
  wait "$first" && good vsock-host-end || bad vsock-host-end "$(cat "$work/stream.1")"
  for _ in $(seq 300); do
    "$out/io/streams" unix-connect "$work/v.sock" 1001 1 >"$work/stream.2" 2>&1 && break
    ctl list | grep -qE '^devices .*running' || break
    sleep 0.2
  done
  works vsock-host-connects grep -q 'every word as sent' "$work/stream.2"
  line devices '^siesta-guest: free'
  works balloon-inflates ctl balloon devices 128M
  line devices '^siesta-guest: balloon' || bad devices-come-to-the-balloon 'see below'
  works balloon-deflates ctl balloon devices 0
  line devices '^siesta-guest: status' || bad devices-come-to-the-end "$(tail -n 5 "$work/devices")"
  works console-hears grep -q 'hello from hvc0' "$work/hvc"
  expect_end devices 'powered off'
  show devices
  works files-have-no-errors e2fsck -fn "$work/files.img"
  works ro-is-as-it-was cmp "$work/ro.img" "$out/io/files.img"
}

# ---------------------------------------------------------------------- inflight
inflight() {
  local disks=() each
  for each in 1 2 3 4 5 6 7 8; do
    truncate -s 4M "$work/inflight.$each.img"
    disks+=(--disk "$work/inflight.$each.img")
  done
  create inflight "siesta.modules=virtio_mmio,virtio_blk siesta.run=/tests/inflight.sh" "${disks[@]}"
  line inflight '^blocks: 1024 requests under way' || bad inflight-was-under-way "$(tail -n 5 "$work/inflight")"
  expect_end inflight 'powered off'
  for each in 1 2 3 4 5 6 7 8; do
    works "inflight-disk-$each" "$out/io/blocks" look "$work/inflight.$each.img" 4 7
    "$out/io/blocks" look "$work/inflight.$each.img" 4 7 | sed 's/^blocks: .*: /fact inflight /'
  done
}

# ----------------------------------------------------------------------- reboots
reboots() {
  cp "$out/io/files.img" "$work/starts.img"
  create reboots "siesta.modules=virtio_mmio,virtio_blk siesta.run=/tests/reboots.sh siesta.reboots=$reboots" \
    --disk "$work/starts.img" --on-reboot restart
  line reboots '^siesta-guest: status' || bad reboots-end "$(tail -n 5 "$work/reboots")"
  expect_end reboots 'powered off'
  local starts
  starts=$(grep -c '^siesta-guest: start ' "$work/reboots")
  if [ "$starts" = $((reboots + 1)) ]; then good "reboots-$reboots"; else bad "reboots-$reboots" "$starts starts"; fi
  works starts-has-no-errors e2fsck -fn "$work/starts.img"
}

# ------------------------------------------------------------------------- power
# Ends with the status that it should, as `siesta run`.
alone() { # name, status, options...
  local name=$1 status=$2 got=0
  shift 2
  timeout 120 "$siesta" run --timers "$mode" --kernel "$kernel" --initrd "$out/root-io.cpio" --memory 192M \
    --cmdline "$common siesta.modules=button,evdev,pvpanic,pvpanic-mmio siesta.run=/tests/power.sh siesta.power=$name" "$@" \
    >"$work/$name" 2>&1 &
  local vmm=$!
  if [ "$name" = button ]; then
    for _ in $(seq 600); do grep -q '^siesta-guest: waits' "$work/$name" && break; sleep 0.1; done
    sleep 1
    pkill -TERM -f -x "$siesta run .*siesta.power=button.*"
  fi
  wait $vmm || got=$?
  if [ $got = "$status" ]; then good "$name-status-$status"
  else bad "$name-status-$status" "$got: $(tail -n 3 "$work/$name")"; fi
  show "$name"
}
power() {
  alone reboot 0
  # One that went on would have powered off, with the same status.
  works reboot-was-one sh -c "! grep -q '^siesta-guest: status' '$work/reboot'"
  alone panic 8
  alone button 0 --shutdown-timeout 60
  works button-was-seen grep -q '^siesta-guest: button' "$work/button"
  alone freeze 0
}

for part in $parts; do "$part"; done
exit "$failures"
