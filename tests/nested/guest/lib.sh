# lib.sh - what the guests' test scripts have in common; they source it.
#
# Lines that are read outside: 'fact NAME VALUE', 'ok NAME', 'not ok NAME: WHY'.
: "${failures:=0}"

fact() { echo "fact $*"; }

# check NAME TEST-ARGUMENTS...: 'ok' if test(1) says so.
check() {
  name=$1
  shift
  if [ "$@" ]; then
    echo "ok $name"
  else
    echo "not ok $name: $*"
    failures=$((failures + 1))
  fi
}

# works NAME COMMAND...: 'ok' if the command's status is 0.
works() {
  name=$1
  shift
  if "$@" >/tmp/works 2>&1; then
    echo "ok $name"
  else
    echo "not ok $name: status $? of $*"
    tail -n 3 /tmp/works
    failures=$((failures + 1))
  fi
}

# word NAME DEFAULT: what siesta.NAME= on the kernel's command line says.
word() {
  for each in $(cat /proc/cmdline); do
    case $each in siesta."$1"=*) echo "${each#*=}"; return;; esac
  done
  echo "$2"
}

# loc CPU: interrupts of that CPU's APIC timer, as the kernel counts them.
loc() { awk -v n=$(($1 + 2)) '$1 == "LOC:" { print $n }' /proc/interrupts; }

# How far the count of ticks is from the monotonic clock, in ticks: the least of
# some looks, each of which sees the clock first and the ticks a little later.
ticks_ahead() {
  hz=${1:-250}
  for _ in 1 2 3 4 5; do cat /proc/timer_list; done | awk -v hz="$hz" '
    /^now at/ { now = $3 }
    /^jiffies:/ && now { a = $2 - now / 1e9 * hz; now = 0; if (!seen++ || a < least) least = a }
    END { printf "%d\n", least }'
}

# ends: the script's exit status.
ends() { exit "$failures"; }
