/*
 * Checks with names, printed as they are made, so that the output of two
 * machines can be compared line by line. Owns the counts.
 */
#include "check.h"

static u32 held, failed;

static void verdict(bool holds, const char *name)
{
    if (holds)
        held++;
    else
        failed++;
    put(holds ? "ok " : "FAIL ");
    put(name);
}

void check(const char *name, bool holds)
{
    verdict(holds, name);
    put("\n");
}

void check_is(const char *name, u64 got, u64 want)
{
    verdict(got == want, name);
    if (got != want) {
        put(" got=");
        put_hex(got);
        put(" want=");
        put_hex(want);
    }
    put("\n");
}

void check_range(const char *name, u64 got, u64 least, u64 most)
{
    bool holds = got >= least && got <= most;
    verdict(holds, name);
    if (!holds) {
        put(" got=");
        put_u64(got);
        put(" want=");
        put_u64(least);
        put("..");
        put_u64(most);
    }
    put("\n");
}

static void pair(char *to, u8 value)
{
    to[0] = "0123456789abcdef"[value >> 4];
    to[1] = "0123456789abcdef"[value & 15];
    to[2] = 0;
}

static bool log_is(u32 cpu, const char *want)
{
    u32 count = log_count(cpu);
    char text[3];
    for (u32 i = 0; i < count; i++) {
        if (i && *want++ != ' ')
            return false;
        pair(text, log_at(cpu, i));
        if (want[0] != text[0] || want[1] != text[1])
            return false;
        want += 2;
    }
    return !*want;
}

static void put_log(u32 cpu)
{
    char text[3];
    for (u32 i = 0; i < log_count(cpu); i++) {
        pair(text, log_at(cpu, i));
        put(text);
        put(" ");
    }
}

void check_log(const char *name, u32 cpu, const char *want)
{
    bool same = log_is(cpu, want);
    verdict(same, name);
    if (!same) {
        put(" got=");
        put_log(cpu);
        put("want=");
        put(want);
    }
    put("\n");
}

void check_cpus(const char *name, u32 cpus, u32 mask, const char *want)
{
    u32 wrong = 0, entries = 0;
    for (const char *at = want; *at; at++)
        entries += at == want || at[-1] == ' ';
    sti();
    for (u32 cpu = 0; cpu < cpus; cpu++)
        wait_log(cpu, (mask >> cpu) & 1 ? entries : 0);
    pause_us(1000);
    cli();
    for (u32 cpu = 0; cpu < cpus; cpu++)
        wrong |= (u32)!log_is(cpu, (mask >> cpu) & 1 ? want : "") << cpu;
    verdict(!wrong, name);
    for (u32 cpu = 0; cpu < cpus; cpu++)
        if ((wrong >> cpu) & 1) {
            put(" cpu");
            put_u64(cpu);
            put("=");
            put_log(cpu);
        }
    put("\n");
    log_clear();
}

void skipped(const char *name, const char *why)
{
    put("skipped ");
    put(name);
    put(": ");
    put(why);
    put("\n");
}

void check_end(void)
{
    put(image_name);
    put(failed ? ": FAILED held=" : ": ok held=");
    put_u64(held);
    put(" failed=");
    put_u64(failed);
    put("\n");
    leave(true, failed ? 2 : 0);
}
