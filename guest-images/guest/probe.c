/*
 * The real-mode code of smp_probe.S, put into its page, and how often it was
 * started. Owns nothing but these pages.
 */
#include "check.h"
#include "probe.h"

extern const u8 probe_start[], probe_end[];

void probe_at(u64 page)
{
    u8 *to = (u8 *)page;
    for (const u8 *from = probe_start; from < probe_end; from++)
        *to++ = *from;
    *(volatile u32 *)(page + PROBE_COUNT) = 0;
}

u32 count_at(u64 page)
{
    return *(volatile u32 *)(page + PROBE_COUNT);
}

bool wait_count(u64 page, u32 count)
{
    u64 start = rdtsc();
    while (count_at(page) < count)
        if (is_over(start, 1000000))
            return false;
    pause_us(500);
    return count_at(page) == count;
}
