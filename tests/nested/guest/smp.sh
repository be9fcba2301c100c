# smp.sh - the second CPU: its timer, taking it out and putting it back.
. /tests/lib.sh
check two-cpus "$(nproc)" = 2
for round in 1 2; do
  before=$(loc 1)
  taskset 2 sleep 1
  check "timer-of-cpu1-fires-$round" "$(loc 1)" -gt "$before"
  echo 0 >/sys/devices/system/cpu/cpu1/online
  check "cpu1-is-gone-$round" "$(nproc)" = 1
  sleep 1
  echo 1 >/sys/devices/system/cpu/cpu1/online
  check "cpu1-is-back-$round" "$(nproc)" = 2
done
before=$(loc 1)
taskset 2 sleep 1
check timer-of-cpu1-fires-at-last "$(loc 1)" -gt "$before"
. /tests/timers.sh
