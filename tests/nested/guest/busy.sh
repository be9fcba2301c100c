# busy.sh - a guest whose first CPU is never idle.
while :; do :; done
