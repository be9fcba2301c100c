# reboots.sh - counts its starts on a disk, and resets the machine, siesta.reboots=N
# times; then the script ends.
. /tests/lib.sh
mkdir -p /tmp/files
mount -t ext4 /dev/vda /tmp/files || exit 1
count=$(($(cat /tmp/files/starts 2>/dev/null || echo 0) + 1))
echo "$count" >/tmp/files/starts
echo "siesta-guest: start $count"
umount /tmp/files
[ "$count" -gt "$(word reboots 3)" ] || reboot -f
ends
