# idle.sh - a guest that has nothing to do, and says from time to time how many
# interrupts its APIC timers have given, all CPUs together, and when: siesta.period=N
# seconds (20). Seldom, as each line's interrupts wake it.
. /tests/lib.sh
period=$(word period 20)
while :; do
  read -r up _ </proc/uptime
  echo "loc $up $(awk '$1 == "LOC:" { for (n = 2; $n ~ /^[0-9]+$/; n++) sum += $n; print sum }' /proc/interrupts)"
  sleep "$period"
done
