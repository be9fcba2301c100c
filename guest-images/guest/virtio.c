/*
 * Virtio devices over MMIO (Virtio 1.2, 4.2.2): a disk in the first window, an
 * entropy device in the second, each used by interrupts alone, in HLT. Then
 * what a driver must not do, and that a reset mends it. The disk has at least
 * 16 sectors; sectors 2 and 3 are written.
 */
#include "legacy.h"

const char image_name[] = "virtio";

#define WINDOWS 0xd0000000ul
#define FIRST_PIN 16
#define FIRST_VECTOR 0x40

#define DEVICE_ID 0x08
#define DRIVER_FEATURES 0x20
#define DRIVER_FEATURES_SEL 0x24
#define QUEUE_NUM_MAX 0x34
#define QUEUE_NUM 0x38
#define QUEUE_READY 0x44
#define QUEUE_NOTIFY 0x50
#define INTERRUPT_STATUS 0x60
#define INTERRUPT_ACK 0x64
#define STATUS 0x70
#define QUEUE_DESC 0x80
#define QUEUE_DRIVER 0x90
#define QUEUE_DEVICE 0xa0
#define CONFIG 0x100

#define NEEDS_RESET 0x40
#define RUNNING 0xf
#define F_FLUSH (1u << 9)

#define IN 0
#define OUT 1
#define FLUSH 4
#define GET_ID 8

#define NEXT 1
#define WRITE 2

#define SIZE 8
#define SECTOR 512

struct descriptor {
    u64 address;
    u32 length;
    u16 flags, next;
};

/* One device's ring, in memory that is mapped to itself. */
static struct ring {
    struct descriptor table[SIZE];
    struct {
        u16 flags, index, ring[SIZE], used_event;
    } available;
    struct {
        u16 flags, index;
        struct {
            u32 id, length;
        } ring[SIZE];
        u16 available_event;
    } used __attribute__((aligned(4)));
    u16 seen;
} __attribute__((aligned(4096))) rings[2];

static struct {
    u32 type, reserved;
    u64 sector;
} header;
static volatile u8 status;
static u8 buffer[4 * SECTOR], other[4 * SECTOR];
static volatile u32 interrupts[2], told[2];

static volatile u32 *reg(u32 device, u32 offset)
{
    return (volatile u32 *)(WINDOWS + device * 0x1000ul + offset);
}

static void interrupted(u32 vector)
{
    u32 device = vector - FIRST_VECTOR;
    if (device < 2) {
        u32 why = *reg(device, INTERRUPT_STATUS);
        *reg(device, INTERRUPT_ACK) = why;
        told[device] |= why;
        interrupts[device]++;
    }
    apic_eoi();
}

static void begin(u32 device, u32 features)
{
    struct ring *ring = &rings[device];
    for (u64 i = 0; i < sizeof *ring; i++)
        ((volatile u8 *)ring)[i] = 0;
    told[device] = 0;
    *reg(device, STATUS) = 0;
    *reg(device, STATUS) = 1;
    *reg(device, STATUS) = 3;
    *reg(device, DRIVER_FEATURES_SEL) = 0;
    *reg(device, DRIVER_FEATURES) = features;
    *reg(device, DRIVER_FEATURES_SEL) = 1;
    *reg(device, DRIVER_FEATURES) = 1;
    *reg(device, STATUS) = 0xb;
    *reg(device, QUEUE_NUM) = SIZE;
    *reg(device, QUEUE_DESC) = (u32)(u64)ring->table;
    *reg(device, QUEUE_DRIVER) = (u32)(u64)&ring->available;
    *reg(device, QUEUE_DEVICE) = (u32)(u64)&ring->used;
    *reg(device, QUEUE_READY) = 1;
    *reg(device, STATUS) = RUNNING;
}

static void describe(u32 device, u32 at, volatile void *address, u32 length, u32 flags)
{
    rings[device].table[at] =
        (struct descriptor){(u64)address, length, (u16)flags, (u16)(at + 1)};
}

/* Makes the chain that begins at descriptor 0 available, and halts until the device interrupts and
 * something came of it: a used buffer, or the end of the device. Answers how many bytes were
 * written, or -1. */
static u32 submit(u32 device)
{
    struct ring *ring = &rings[device];
    volatile u16 *index = &ring->used.index;
    u32 before = interrupts[device];
    ring->available.ring[ring->available.index % SIZE] = 0;
    barrier();
    ring->available.index++;
    barrier();
    *reg(device, QUEUE_NOTIFY) = 0;
    cli();
    while (interrupts[device] == before || (*index == ring->seen && !(told[device] & 2)))
        __asm__ volatile("sti; hlt; cli" : : : "memory");
    if (*index == ring->seen)
        return -1u;
    return ring->used.ring[ring->seen++ % SIZE].length;
}

/* Answers the disk's status; 0xff: the device has stopped. */
static u32 disk(u32 type, u64 sector, u8 *data, u32 length)
{
    header.type = type;
    header.sector = sector;
    status = 0xee;
    u32 at = 0;
    describe(0, at++, &header, sizeof header, NEXT);
    if (length)
        describe(0, at++, data, length, type == OUT ? NEXT : NEXT | WRITE);
    describe(0, at, &status, 1, WRITE);
    return submit(0) == -1u ? 0xff : status;
}

static bool same(const u8 *a, const u8 *b, u32 length)
{
    for (u32 i = 0; i < length; i++)
        if (a[i] != b[i])
            return false;
    return true;
}

static void disk_works(void)
{
    check_is("disk-is-there", *reg(0, DEVICE_ID), 2);
    check("disk-queue-has-room", *reg(0, QUEUE_NUM_MAX) >= SIZE);
    begin(0, F_FLUSH);
    check_is("disk-runs", *reg(0, STATUS), RUNNING);
    u32 sectors = *reg(0, CONFIG);
    check("disk-has-sectors", sectors >= 16);
    for (u32 i = 0; i < sizeof buffer; i++)
        buffer[i] = (u8)(i * 7 + (i >> 8));
    check_is("disk-writes", disk(OUT, 2, buffer, 2 * SECTOR), 0);
    check_is("disk-flushes", disk(FLUSH, 0, NULL, 0), 0);
    check_is("disk-reads", disk(IN, 2, other, 2 * SECTOR), 0);
    check("disk-reads-what-was-written", same(buffer, other, 2 * SECTOR));
    for (u32 i = 0; i < 20; i++)
        other[i] = 0;
    check_is("disk-tells-its-name", disk(GET_ID, 0, other, 20), 0);
    check("disk-is-called-siesta", same(other, (const u8 *)"siesta-disk0", 13));
    check_is("disk-refuses-what-is-beyond", disk(IN, sectors, other, SECTOR), 1);
    check_is("disk-refuses-what-it-does-not-know", disk(77, 0, other, SECTOR), 2);
    u32 before = interrupts[0];
    u32 good = 0;
    for (u32 i = 0; i < 200; i++)
        good += disk(IN, i % 16, other, SECTOR) == 0;
    check_is("disk-reads-again-and-again", good, 200);
    check_is("disk-interrupts-once-for-each", interrupts[0] - before, 200);
}

static void entropy_works(void)
{
    check_is("entropy-is-there", *reg(1, DEVICE_ID), 4);
    begin(1, 0);
    for (u32 round = 0; round < 2; round++) {
        u8 *to = round ? other : buffer;
        for (u32 i = 0; i < 64; i++)
            to[i] = 0;
        describe(1, 0, to, 64, WRITE);
        check_is("entropy-fills-a-buffer", submit(1), 64);
    }
    check("entropy-differs", !same(buffer, other, 64));
}

static void bad_drivers_are_stopped(void)
{
    describe(0, 0, &header, sizeof header, NEXT);
    rings[0].table[0].next = 0;
    check_is("loop-stops-the-disk", submit(0), -1u);
    check_is("disk-needs-a-reset", *reg(0, STATUS), RUNNING | NEEDS_RESET);
    begin(0, F_FLUSH);
    check_is("reset-mends-the-disk", disk(IN, 2, other, SECTOR), 0);
    describe(1, 0, (void *)0xfffffffffff0ul, 64, WRITE);
    check_is("buffer-nowhere-stops-entropy", submit(1), -1u);
    begin(1, 0);
    describe(1, 0, other, 64, WRITE);
    check_is("reset-mends-entropy", submit(1), 64);
    *reg(0, QUEUE_NOTIFY) = 77;
    *reg(0, STATUS) = 0;
    *reg(0, QUEUE_NOTIFY) = 0;
    check_is("reset-stops-the-disk", *reg(0, STATUS), 0);
    begin(0, 0);
    check_is("disk-works-without-flushes", disk(OUT, 3, buffer, SECTOR), 0);
}

void image_main(void)
{
    apic_choose();
    irq_open();
    apic_open();
    irq_hook = interrupted;
    outb(PIC1_DATA, 0xff);
    for (u32 device = 0; device < 2; device++)
        ioapic_set(FIRST_PIN + device, FIRST_VECTOR + device, 0);
    disk_works();
    entropy_works();
    bad_drivers_are_stopped();
    check_end();
}
