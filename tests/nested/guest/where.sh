# where.sh - how many CPUs the guest has, and where its root is.
if grep -q '^/dev/vda / ' /proc/mounts; then root=disk; else root=initrd; fi
echo "where $(nproc) $root"
