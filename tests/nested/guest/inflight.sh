# inflight.sh - powers off while all disks have as many requests under way as their
# queues hold. What is on them then is looked at outside.
exec blocks inflight 4 1 7 /dev/vd?
