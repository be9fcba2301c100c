/*
 * Storms beside the local APIC: accesses of widths and at places that no register
 * has, and the I/O APIC's entries changed while their line is busy.
 */
/* Nothing here is in a hurry, and an image has little room. */
#pragma GCC optimize("Os")

#include "legacy.h"
#include "storm.h"

#define LVT_MASKED 0x10000
#define PAGE_BYTES 0x1000ul
/* Nothing there, as far as the next page. */
#define EMPTY 0xfed80000ul
#define LINE_VECTORS 0x60
#define LEVEL_VECTORS 0x70
/* 200 us: monitors make it no shorter. */
#define PIT_DIVISOR 238

static u64 read_wide(u64 at, u32 width)
{
    switch (width) {
    case 1:
        return *(volatile u8 *)at;
    case 2:
        return *(volatile u16 *)at;
    case 4:
        return *(volatile u32 *)at;
    default:
        return *(volatile u64 *)at;
    }
}

static void write_wide(u64 at, u32 width, u64 value)
{
    switch (width) {
    case 1:
        *(volatile u8 *)at = (u8)value;
        break;
    case 2:
        *(volatile u16 *)at = (u16)value;
        break;
    case 4:
        *(volatile u32 *)at = (u32)value;
        break;
    default:
        *(volatile u64 *)at = value;
    }
}

static void move_bytes(u64 to, u64 from, u64 count)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

/* No width at a place where it is a register's. */
static u64 some_place(u32 random, u32 width)
{
    static const u64 pages[] = {XAPIC_BASE, IOAPIC_BASE, EMPTY};
    u64 page = pages[random % 3];
    if (random / 4 % 4 == 0)
        return page + PAGE_BYTES - width / 2;
    u64 offset = random / 16 % (PAGE_BYTES - 8);
    return page + (width == 4 && offset % 16 == 0 ? offset + 2 : offset);
}

static const u32 kept[] = {APIC_ID,        APIC_TPR,       APIC_LDR,      APIC_SVR,
                           APIC_LVT_LINT0, APIC_LVT_LINT1, APIC_LVT_ERROR, APIC_TMICT};
#define KEPT (sizeof(kept) / sizeof(kept[0]))

static void empty_reads_ones(void)
{
    u32 wrong = 0;
    for (u32 i = 0; i < 64; i++)
        for (u32 width = 1; width <= 8; width *= 2) {
            u64 ones = ~0ul >> (64 - 8 * width);
            write_wide(EMPTY + i, width, 0);
            wrong += read_wide(EMPTY + i, width) != ones;
            wrong += read_wide(EMPTY + PAGE_BYTES - width / 2, width) != ones;
        }
    check_is("empty-addresses-read-ones", wrong, 0);
    check_is("pages-are-crossed-as-two-accesses", read_wide(IOAPIC_BASE + PAGE_BYTES - 4, 8),
             0xffffffff00000000);
}

void storm_mmio(u64 count)
{
    static u8 bytes[16];
    u32 before[KEPT], changed = 0;
    empty_reads_ones();
    for (u32 i = 0; i < KEPT; i++)
        before[i] = apic_read(kept[i]);
    for (u64 i = 0; i < count; i++) {
        u32 random = storm_random(), width = 1u << (random >> 30);
        u64 at = some_place(random & 0x3fffffff, width);
        if (i % 2)
            write_wide(at, width, (u64)random << 32 | storm_random());
        else
            (void)read_wide(at, width);
        if (i % 256 == 0) {
            move_bytes((u64)bytes, at, sizeof(bytes));
            move_bytes(at | 1, (u64)bytes, sizeof(bytes) - 1);
            (void)__sync_fetch_and_or((volatile u32 *)(EMPTY + 4), 1);
        }
    }
    for (u32 i = 0; i < KEPT; i++)
        changed += apic_read(kept[i]) != before[i];
    check_is("local-apic-is-as-before", changed, 0);
    apic_write(APIC_ESR, 0);
    ioapic_mask_all();
    check_is("io-apic-still-has-24-pins", ioapic_pins(), 24);
}

/* How many came on the PIT's line, of all CPUs: not exact when several come at once. */
static volatile u32 line_came;

static void on_line(u32 vector)
{
    if (vector == VECTOR_NMI || vector == VECTOR_SPURIOUS)
        return;
    line_came++;
    /* Or it comes again for ever. */
    if (vector >= LEVEL_VECTORS)
        ioapic_write(0x10 + 2 * ioapic_pit_pin, IOAPIC_MASKED);
    apic_eoi();
}

/* What was sent to another CPU may be taken late, where the host is busy. */
static void wait_quiet(void)
{
    for (u32 tries = 0; tries < 50; tries++) {
        u32 before = line_came;
        pause_us(20000);
        if (line_came == before)
            break;
    }
}

void storm_lines(u64 count)
{
    ioapic_mask_all();
    check("line-is-found", ioapic_find_pit());
    irq_hook = on_line;
    outb(PIT_CONTROL, 0x34);
    outb(PIT_CHANNEL0, PIT_DIVISOR & 0xff);
    outb(PIT_CHANNEL0, PIT_DIVISOR >> 8);
    sti();
    for (u64 i = 0; i < count; i++) {
        u32 random = storm_random(), level = random % 8 == 0;
        u32 entry = (level ? IOAPIC_LEVEL | LEVEL_VECTORS : LINE_VECTORS) | (random >> 8 & 15);
        /* One in so many is for nobody. */
        u8 target = (u8)(random >> 16) % (storm_cpus + 1);
        ioapic_set(ioapic_pit_pin, entry, target);
        if (random % 4 == 1)
            ioapic_write(0x10 + 2 * ioapic_pit_pin, entry | IOAPIC_MASKED);
        if (random % 4 == 2)
            ioapic_write(0x11 + 2 * ioapic_pit_pin, (u32)(random % storm_cpus) << 24);
        pause_us(random >> 24);
    }
    cli();
    ioapic_mask_all();
    outb(PIT_CONTROL, 0x30);
    sti();
    wait_quiet();
    cli();
    check("line-came-through-the-storm", line_came != 0);
    irq_hook = NULL;
    check("line-is-found-again", ioapic_find_pit());
    log_clear();
}
