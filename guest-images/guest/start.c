/*
 * Starts all other vCPUs at once, however many, and says how long it took from
 * the SIPI until the last of them was alive. Owns nothing: an AP has no stack
 * and no report page here, it counts itself in real mode and halts.
 */
#include "check.h"
#include "probe.h"

const char image_name[] = "start";

#define MOST 4096

void image_main(void)
{
    u64 cpus = param_u64("cpus", 2);
    if (cpus < 2 || cpus > MOST)
        fail("cpus is not in 2..4096");
    apic_choose();
    irq_open();
    apic_open();
    probe_at(PROBE_PAGE);
    apic_send(0, ICR_INIT | ICR_OTHERS);
    pause_us(1000);
    u64 start = rdtsc();
    apic_send(0, ICR_SIPI | ICR_OTHERS | PROBE_PAGE >> 12);
    while (count_at(PROBE_PAGE) < cpus - 1)
        if (is_over(start, 5000000))
            fail("not all vCPUs are alive after 5 seconds");
    u64 took = rdtsc() - start;
    if (!wait_count(PROBE_PAGE, (u32)cpus - 1))
        fail("more vCPUs are alive than there should be");
    put("start: cpus=");
    put_u64(cpus);
    put(" us=");
    put_u64(took / (tsc_hz() / 1000000));
    put("\r\n");
    finish();
}
