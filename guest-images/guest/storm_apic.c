/*
 * Storms on the local APIC: interrupts to oneself, modes that change as fast as
 * they can, and interrupts that are for nobody.
 */
/* Nothing here is in a hurry, and an image has little room. */
#pragma GCC optimize("Os")

#include "storm.h"

#define BASE_EXTD (1ul << 10)
#define BASE_EN (1ul << 11)
#define LVT_MASKED 0x10000
#define LVT_PERIODIC 0x20000
#define LVT_DEADLINE 0x40000
#define SVR_ON 0x100
#define ESR_ILLEGAL_VECTOR 0x60
#define FIRST_LEGAL 16
/* Vectors that have a gate of this image's. */
#define FIRST_GATE 0x20
#define LAST_GATE 0xef
#define ROUNDS 20
/* Of so many interrupts to oneself one is taken at once. */
#define AT_ONCE 50

/* What a handler saw, by vector, and whether it came out of turn. */
static volatile u32 came[256], out_of_turn, last_vector;

static void on_own(u32 vector)
{
    if (vector == VECTOR_NMI || vector == VECTOR_SPURIOUS)
        return;
    came[vector]++;
    out_of_turn += vector > last_vector;
    last_vector = vector;
    apic_eoi();
}

static void send_to_self(u32 vector)
{
    apic_write(APIC_ICR, ICR_FIXED | ICR_SELF | vector);
}

static u32 errors(void)
{
    apic_write(APIC_ESR, 0);
    return apic_read(APIC_ESR);
}

/* Vectors with a gate and, one in eight, illegal ones. */
static u8 vectors[256];

static void choose_vectors(void)
{
    for (u32 i = 0; i < 256; i++) {
        u32 random = storm_random();
        vectors[i] = (u8)(random % 8 == 0 ? random / 8 % FIRST_LEGAL
                                          : FIRST_GATE + random / 8 % (LAST_GATE - FIRST_GATE + 1));
    }
}

/* The shortest way, as so many are to be sent. */
static void send_all(u64 count)
{
    if (apic_is_x2)
        for (u64 i = 0; i < count; i++)
            wrmsr(MSR_X2APIC + APIC_ICR / 16, ICR_FIXED | ICR_SELF | vectors[i & 255]);
    else
        for (u64 i = 0; i < count; i++)
            *(volatile u32 *)(XAPIC_BASE + APIC_ICR) = ICR_FIXED | ICR_SELF | vectors[i & 255];
}

static void forget(void)
{
    for (u32 vector = 0; vector < 256; vector++)
        came[vector] = 0;
    out_of_turn = 0;
    last_vector = 255;
}

/* Takes what came, and waits a little for what must not come. */
static void take_all(u64 expected)
{
    log_total = 0;
    sti();
    for (u64 start = rdtsc(); log_total < expected && !is_over(start, 5000000);)
        barrier();
    pause_us(100);
    cli();
}

/* What was sent with IF=0 waits in IRR, each vector once, and nothing else does. */
static u32 round_of(u64 count)
{
    static bool sent[256];
    u32 wrong = 0, expected = 0;
    for (u32 vector = 0; vector < 256; vector++)
        sent[vector] = false;
    choose_vectors();
    forget();
    errors();
    for (u64 i = 0; i < count && i < 256; i++)
        sent[vectors[i]] = true;
    send_all(count);
    bool illegal = false;
    for (u32 vector = 0; vector < FIRST_LEGAL; vector++) {
        illegal = illegal || sent[vector];
        sent[vector] = false;
    }
    wrong += (errors() & ESR_ILLEGAL_VECTOR) != (illegal ? ESR_ILLEGAL_VECTOR : 0);
    for (u32 word = 0; word < 8; word++) {
        u32 requests = apic_read(APIC_IRR + 16 * word);
        for (u32 bit = 0; bit < 32; bit++) {
            wrong += (requests >> bit & 1) != sent[32 * word + bit];
            expected += sent[32 * word + bit];
        }
    }
    take_all(expected);
    for (u32 vector = 0; vector < 256; vector++)
        wrong += came[vector] != sent[vector];
    return wrong + out_of_turn;
}

void storm_self(u64 count)
{
    u32 wrong = 0, lost = 0;
    irq_hook = on_own;
    for (u32 i = 0; i < ROUNDS; i++)
        wrong += round_of(count / ROUNDS);
    check_is("exactly-what-waits-arrives-and-in-order", wrong, 0);
    sti();
    for (u64 i = 0; i < count / AT_ONCE; i++) {
        u32 vector = FIRST_GATE + i % (LAST_GATE - FIRST_GATE + 1);
        u32 before = came[vector];
        send_to_self(vector);
        barrier();
        lost += came[vector] != before + 1;
    }
    cli();
    check_is("each-comes-at-once-with-if-set", lost, 0);
}

/* Whether the other CPUs go on sending to CPU 0. */
static volatile bool pestering;
static bool has_deadline;

/* Halts in between, so that it leaves the host's CPUs to others. */
static void pester(u32 cpu)
{
    while (pestering) {
        apic_send(0, ICR_FIXED | (0x50 + cpu));
        idle_us(200);
    }
    serve(cpu);
}

/* In a mode that the other CPUs are not in. */
static void put_register(bool x2, u32 reg, u32 value)
{
    if (x2)
        wrmsr(MSR_X2APIC + reg / 16, value);
    else
        *(volatile u32 *)(u64)(XAPIC_BASE + reg) = value;
}

/* Leaves the timer in one mode or another. */
static void arm_somehow(bool x2, u32 random)
{
    static const u32 modes[] = {0, LVT_PERIODIC, LVT_DEADLINE, LVT_MASKED};
    u32 mode = modes[random % 4];
    if (mode == LVT_DEADLINE && !has_deadline)
        mode = 0;
    put_register(x2, APIC_SVR, SVR_ON | VECTOR_SPURIOUS);
    put_register(x2, APIC_LVT_TIMER, mode | VECTOR_TIMER);
    if (mode == LVT_DEADLINE)
        wrmsr(MSR_TSC_DEADLINE, rdtsc() + random / 4 % 0x10000);
    else
        put_register(x2, APIC_TMICT, random / 4 % 0x10000);
}

/* xAPIC, disabled, xAPIC, x2APIC, disabled; and what is not allowed in between. */
static u32 round_of_modes(u64 base, u32 random)
{
    u32 wrong = 0;
    wrmsr(MSR_APIC_BASE, base);
    wrong += try_wrmsr(MSR_APIC_BASE, base | BASE_EN | BASE_EXTD);
    wrmsr(MSR_APIC_BASE, base | BASE_EN);
    arm_somehow(false, random);
    wrmsr(MSR_APIC_BASE, base | BASE_EN | BASE_EXTD);
    arm_somehow(true, random >> 8);
    wrong += try_wrmsr(MSR_APIC_BASE, base | BASE_EN);
    wrmsr(MSR_APIC_BASE, base);
    return wrong;
}

void storm_modes(u64 count)
{
    u64 base = rdmsr(MSR_APIC_BASE) & ~(BASE_EN | BASE_EXTD);
    u32 wrong = 0;
    has_deadline = (cpuid(1).ecx >> 24) & 1;
    pestering = true;
    for (u32 cpu = 1; cpu < storm_cpus; cpu++)
        if (!start_ap(cpu, pester))
            fail("a CPU did not answer INIT and SIPI");
    for (u64 i = 0; i < count; i++) {
        u32 random = storm_random();
        wrong += round_of_modes(base, random);
        if (random % 16 == 0) {
            apic_open();
            arm_somehow(apic_is_x2, random >> 16);
            sti();
            pause_us(20);
            cli();
        }
    }
    check_is("forbidden-transitions-fault", wrong, 0);
    pestering = false;
    wrmsr(MSR_APIC_BASE, base);
    apic_open();
    sti();
    pause_us(2000);
    cli();
    log_clear();
}

/* Commands that reach nobody: modes that are reserved or serve no purpose here, and
 * shorthands that do not go with the mode (SDM vol. 3A, table of the valid
 * combinations), whatever the destination. */
static const u32 without_effect[] = {
    0x200, 0x300, 0x700,                                     /* SMI, reserved, ExtINT */
    0x300 | ICR_SELF, 0x300 | ICR_ALL, 0x300 | ICR_OTHERS,
    0x700 | ICR_SELF, 0x700 | ICR_ALL, 0x700 | ICR_OTHERS,
    0x200 | ICR_SELF, 0x200 | ICR_ALL, 0x200 | ICR_OTHERS, 0x100 | ICR_SELF, 0x100 | ICR_ALL,
    0x400 | ICR_SELF, 0x400 | ICR_ALL, 0x500 | ICR_SELF, 0x500 | ICR_ALL,
    0x600 | ICR_SELF, 0x600 | ICR_ALL,
};

/* In each delivery mode, to a CPU that does not exist. */
static void send_away(u32 random)
{
    u32 command = (random & 0xdfff) & ~0x1000u;
    /* As logical IDs: clusters that nobody is in; xAPIC mode's are all 0 here. */
    u32 absent = apic_is_x2 ? 0x7fff0000u | random >> 16 : 0x30 | (random >> 16 & 0xf);
    apic_send(absent, command);
}

static u32 faults(u32 random)
{
    if (!apic_is_x2)
        return 0;
    u64 reserved = 1ul << (random % 2 ? 13 : 16 + random / 2 % 2);
    return try_wrmsr(MSR_X2APIC + APIC_ICR / 16, (u64)random << 32 | ICR_FIXED | 0x50 | reserved);
}

void storm_nobody(u64 count)
{
    u32 kinds = sizeof(without_effect) / sizeof(without_effect[0]), wrong = 0;
    log_clear();
    sti();
    for (u64 i = 0; i < count; i++) {
        u32 random = storm_random();
        if (random % 4 == 0)
            apic_send(random >> 24 & 7, without_effect[random / 4 % kinds] | 0x4050);
        else if (random % 16 == 1)
            wrong += faults(random);
        else
            send_away(random);
    }
    pause_us(2000);
    cli();
    check_is("reserved-bits-fault", wrong, 0);
    check_cpus("nobody-takes-anything", storm_cpus, 0, "");
    errors();
    check_is("errors-are-told-once", errors(), 0);
}
