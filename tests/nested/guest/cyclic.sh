# cyclic.sh - how late a guest's own sleepers wake: cyclictest, siesta.rounds=N (1000)
# of 2 ms. Nothing may be early.
. /tests/lib.sh
cyclictest --quiet -m -S -d 0 -i 2000 -l "$(word rounds 1000)" -p 80 >/tmp/cyclic 2>&1
check cyclictest-ends-well $? = 0
# T: 0 ( pid) P:80 I:2000 C: 1000 Min: 1 Act: 2 Avg: 3 Max: 4
latencies=$(sed -n 's/^T:.*Min: *\(-*[0-9]*\).*Avg: *\([0-9]*\) Max: *\([0-9]*\).*/\1 \2 \3/p' /tmp/cyclic | head -n 1)
check nothing-is-early "${latencies%% *}" -ge 0
fact cyclictest "$latencies"
ends
