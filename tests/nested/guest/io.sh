# io.sh - the virtio devices under load: disks, network, sockets, console, balloon,
# entropy. Its other half is io-inside.sh. On the kernel's command line:
#   siesta.mib=N          MiB through the socket, each way (16)
#   siesta.operations=N   requests of the block test (2000)
#   siesta.pings=N        of each flood (500)
. /tests/lib.sh
mib=$(word mib 16) operations=$(word operations 2000) pings=$(word pings 500)

# ------------------------------------------------ vda: files, vdb: scratch, vdc: ro
mkdir -p /tmp/files
sums() { (cd /tmp/files && sha256sum -c SUMS); }
of_new() { sha256sum </tmp/files/new; }
works files-mount mount -t ext4 /dev/vda /tmp/files
works files-have-their-sums sums
works files-write dd if=/dev/urandom of=/tmp/files/new bs=65536 count=64 conv=fsync
before=$(of_new)
works files-unmount umount /tmp/files
works files-mount-again mount -t ext4 /dev/vda /tmp/files
check files-new-is-as-written "$(of_new)" = "$before"
works files-have-their-sums-again sums
works files-trim fstrim /tmp/files
works files-unmount-at-last umount /tmp/files

works blocks-check blocks check /dev/vdb 32 "$operations" 128 1
cat /tmp/works
bound=$(basename "$(readlink /sys/block/vdb/device)")
driver=/sys/bus/virtio/drivers/virtio_blk
# A disk that was bound again is there a little later.
await_disk() {
  tries=0
  while [ ! -b /dev/vdb ] && [ $tries -lt 200 ]; do usleep 50000; tries=$((tries + 1)); done
}
for round in 1 2 3; do
  await_disk
  blocks check /dev/vdb 32 1000000 64 2 >/tmp/cut 2>&1 &
  sleep 1
  works "unbind-in-flight-$round" sh -c "echo $bound >$driver/unbind"
  wait $!
  check "request-has-failed-$round" $? = 1
  works "and-nothing-else-$round" grep -qE 'request failed|io_submit failed|flush failed|cannot be' /tmp/cut
  works "bind-again-$round" sh -c "echo $bound >$driver/bind"
done
await_disk
works blocks-check-after-it blocks check /dev/vdb 32 $((operations / 4)) 128 3

check ro-is-told "$(cat /sys/block/vdc/ro)" = 1
works ro-mount mount -t ext4 -o ro,noload /dev/vdc /tmp/files
works ro-has-its-sums sums
works ro-unmount umount /tmp/files
check ro-takes-no-writes "$(dd if=/dev/zero of=/dev/vdc bs=4096 count=1 conv=fsync 2>/dev/null; echo $?)" != 0

# ----------------------------------------------------------------------- entropy
check rng-is-chosen "$(cat /sys/class/misc/hw_random/rng_current)" = virtio_rng.0
works rng-gives dd if=/dev/hwrng of=/tmp/noise bs=4096 count=4 iflag=fullblock
check rng-is-not-constant "$(gzip -c /tmp/noise | wc -c)" -gt 16000

# ----------------------------------------------------------------------- network
# flood NAME ARGUMENTS...: nothing is lost.
flood() {
  name=$1
  shift
  # By its path: busybox's shell has one of its own.
  /bin/ping -q -f -c "$pings" "$@" 10.9.0.1 >/tmp/ping 2>&1
  check "$name" "$(sed -n 's/.* \([0-9.]*%\) packet loss.*/\1/p' /tmp/ping)" = 0%
  sed -n '/transmitted\|rtt/s/^/fact /p' /tmp/ping
  grep -q transmitted /tmp/ping || sed 's/^/fact /' /tmp/ping
}
works net-up ip link set eth0 up
works net-address ip addr add 10.9.0.2/24 dev eth0
works net-ping ping -q -c 1 -W 10 10.9.0.1
flood net-flood
flood net-flood-of-large-ones -s 1472
echo "siesta-guest: net"

# ----------------------------------------------------------------------- sockets
works vsock-from-here streams vsock-connect 2 1000 "$mib"
cat /tmp/works
works vsock-from-there streams vsock-listen 1001 1
check vsock-nobody-listens "$(streams vsock-connect 2 1002 1 2>/dev/null; echo $?)" = 1

# ----------------------------------------------------------------------- console
echo "hello from hvc0" >/dev/hvc0

# ----------------------------------------------------------------------- balloon
free_mib() { awk '/^MemFree:/ { print int($2 / 1024) }' /proc/meminfo; }
vmstat() { awk -v name="$1" '$1 == name { print $2 }' /proc/vmstat; }
before=$(free_mib)
echo "siesta-guest: free $before"
tries=0
while [ "$(free_mib)" -gt 48 ] && [ $tries -lt 300 ]; do usleep 100000; tries=$((tries + 1)); done
check balloon-takes "$(free_mib)" -le 48
inflated=$(vmstat balloon_inflate)
# More than is left: pages come back out of the balloon, nobody is killed.
works balloon-gives-back-in-need sh -c 'head -c 64m /dev/zero | tail -c 64m | wc -c'
fact balloon-pages "$inflated in, $(vmstat balloon_deflate) out in need"
check balloon-was-asked "$(vmstat balloon_deflate)" -gt 0
check balloon-nobody-was-killed "$(dmesg | grep -c 'Out of memory')" = 0
echo "siesta-guest: balloon"
tries=0
while [ "$(free_mib)" -lt $((before - 16)) ] && [ $tries -lt 300 ]; do usleep 100000; tries=$((tries + 1)); done
check balloon-is-empty "$(free_mib)" -ge $((before - 16))
# A machine without PCI is what every kernel complains of.
dmesg -r | grep '^<[0-3]>' | grep -v 'PCI: Fatal: No config space' >/tmp/complaints
sed 's/^/fact complaint /' /tmp/complaints
check no-complaints ! -s /tmp/complaints
ends
