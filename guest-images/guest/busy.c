/* Counts in user mode, without ever halting; for ever, or for `secs`. */
#include "kernel.h"
#include "user.h"

const char image_name[] = "busy";

void image_main(void)
{
    volatile struct report *report = report_of(0);
    u64 secs = param_u64("secs", 0);
    u64 hz = tsc_hz();
    u64 stop = ~0ul;
    report->tsc_khz = hz / 1000;
    if (secs != 0) {
        if (hz == 0)
            fail("secs is given, but the TSC frequency is unknown");
        if (secs > 1000000)
            fail("secs is above 1000000");
        stop = rdtsc() + secs * hz;
    }
    user_open();
    user_enter(user_count, (u64)&report->progress, stop);
    report->state = STATE_DONE;
    put("busy: progress=");
    put_u64(report->progress);
    put("\n");
}
