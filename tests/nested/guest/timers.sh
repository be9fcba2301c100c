# timers.sh - what a guest makes of its APIC timer: which device it uses, that it
# stops its tick when idle, that no tick is lost, that sleeps end.
. /tests/lib.sh
cpus=$(nproc)
HZ=250
IDLE=4

fact cpu-flags "$(sed -n "s/^flags[^:]*: //p" /proc/cpuinfo | head -n 1)"
fact clocksource "$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
event=$(sed -n 's/^Clock Event Device: *\(lapic.*\)/\1/p' /proc/timer_list | sort -u)
fact clockevent "$event"
check one-kind-of-clockevent "$(echo "$event" | wc -w)" = 1
check every-cpu-has-its-apic-timer \
  "$(grep -c '^Clock Event Device: *lapic' /proc/timer_list)" = "$cpus"
check every-cpu-has-the-tick-switched-to-one-shot \
  "$(awk '/^  .nohz_mode/ && $3 > 0 || /^  .nohz  / && $3 > 0' /proc/timer_list | wc -l)" = "$cpus"
bus=$(dmesg | sed -n 's/.*host bus clock speed is \([0-9]*\)\.\([0-9]*\) MHz.*/\1/p' | head -n 1)
[ -z "$bus" ] || fact apic-timer-mhz "$bus"

ahead=$(ticks_ahead $HZ)
before=$(loc 0)
sleep $IDLE
after=$(loc 0)
fact loc-idle $((after - before))
# An APIC timer that never fires would not have let sleep end; a tick that never
# stops would be HZ * IDLE.
check idle-stops-the-tick $((after - before)) -lt $((HZ * IDLE / 2))
drift=$(($(ticks_ahead $HZ) - ahead))
fact tick-drift $drift
check no-tick-is-lost "$drift" -ge -2
check no-tick-comes-twice "$drift" -le 2

if command -v cyclictest >/dev/null; then
  # It ends all its threads soon after the first has made its rounds.
  cyclictest --quiet -m -S -d 0 -i 2000 -l 200 -p 80 >/tmp/cyclic 2>&1
  check cyclictest-ends-well $? = 0
  check cyclictest-makes-its-rounds "$(grep -c 'C: *200' /tmp/cyclic)" -ge 1
  check cyclictest-runs-on-every-cpu \
    "$(sed -n 's/^T:.*C: *\([0-9]*\).*/\1/p' /tmp/cyclic | awk '$1 >= 10' | wc -l)" = "$cpus"
  grep '^T:' /tmp/cyclic
fi

dmesg >/tmp/dmesg
check no-unchecked-msr-access "$(grep -c 'unchecked MSR access' /tmp/dmesg)" = 0
check no-warning "$(grep -c -E 'WARNING:|BUG:|Oops|rcu.*stall|hung task|soft lockup' /tmp/dmesg)" = 0
check clock-is-not-unstable "$(grep -c -i 'unstable' /tmp/dmesg)" = 0
[ "$failures" = 0 ] || cat /tmp/dmesg
# The last look, for whoever counted from outside, and when it was.
fact last-look "$(cut -d ' ' -f 1 /proc/uptime)"
cpu=0
while [ $cpu -lt "$cpus" ]; do fact "loc-$cpu" "$(loc $cpu)"; cpu=$((cpu + 1)); done
ends
