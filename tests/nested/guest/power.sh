# power.sh - one way for a machine to end or to sleep: siesta.power=X.
#   button   waits for the power button, with busybox's acpid
#   reboot   resets itself
#   panic    its kernel panics
#   freeze   suspends to idle until the alarm clock wakes it, three times
. /tests/lib.sh
case $(word power none) in
  button)
    mkdir -p /etc/acpi/PWRF
    printf '#!/bin/sh\necho "siesta-guest: button"\npoweroff -f\n' >/etc/acpi/PWRF/00000080
    chmod +x /etc/acpi/PWRF/00000080
    echo "siesta-guest: waits"
    # In the foreground; what it runs has no other standard output.
    acpid -d -c /etc/acpi >/dev/console 2>&1
    exit 1
    ;;
  reboot)
    reboot -f
    sleep 100
    ;;
  panic)
    echo c >/proc/sysrq-trigger
    sleep 100
    ;;
  freeze)
    alarm=/sys/class/rtc/rtc0/wakealarm
    for round in 1 2 3; do
      before=$(cut -d. -f1 /proc/uptime)
      began=$(cat /sys/power/suspend_stats/success)
      echo 0 >$alarm
      works "alarm-$round" sh -c "echo +3 >$alarm"
      works "freeze-$round" sh -c 'echo freeze >/sys/power/state'
      check "freeze-$round-was-one" "$(cat /sys/power/suspend_stats/success)" = $((began + 1))
      check "freeze-$round-lasted" "$(cut -d. -f1 /proc/uptime)" -ge $((before + 2))
    done
    ticks=$(loc 0)
    sleep 1
    check timer-goes-on "$(loc 0)" -gt "$ticks"
    ends
    ;;
esac
exit 2
