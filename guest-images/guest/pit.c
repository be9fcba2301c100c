/*
 * The 8254 timer: its registers, and channel 0's interrupt by way of the 8259A
 * and of the I/O APIC (Intel 8254 datasheet; ISA port 0x61). Frequencies are held
 * against the APIC timer's.
 */
#include "check.h"
#include "legacy.h"

const char image_name[] = "pit";

#define PIT_HZ 1193182u
/* A tick of the APIC timer is a nanosecond, or what apic_timer_hz says. */
#define LONG_COUNT 4000000000u

static void pit_mode(u32 channel, u32 mode, u32 count)
{
    outb(PIT_CONTROL, (u8)(channel << 6 | 0x30 | mode << 1));
    outb((u16)(PIT_CHANNEL0 + channel), (u8)count);
    outb((u16)(PIT_CHANNEL0 + channel), (u8)(count >> 8));
}

static u32 pit_read(u32 channel)
{
    u32 low = inb((u16)(PIT_CHANNEL0 + channel));
    return low | (u32)inb((u16)(PIT_CHANNEL0 + channel)) << 8;
}

static u32 pit_latched(u32 channel)
{
    outb(PIT_CONTROL, (u8)(channel << 6));
    return pit_read(channel);
}

static u8 pit_status(u32 channel)
{
    outb(PIT_CONTROL, (u8)(0xe0 | 2 << channel));
    return inb((u16)(PIT_CHANNEL0 + channel));
}

static bool is_there(void)
{
    pit_mode(0, 0, 0xffff);
    return (pit_status(0) & 0x3f) == 0x30;
}

static void registers(void)
{
    pit_mode(0, 3, 0);
    check_is("status-shows-mode-3", pit_status(0) & 0x3f, 0x36);
    pit_mode(0, 2, 0);
    check_is("status-shows-mode-2", pit_status(0) & 0x3f, 0x34);
    pit_mode(2, 0, 0x8000);
    check_is("status-shows-mode-0", pit_status(2) & 0x3f, 0x30);
    outb(PIT_CONTROL, 0x14);
    check_is("status-shows-low-byte-access", pit_status(0) & 0x3f, 0x14);
    outb(PIT_CHANNEL0, 0);
    pit_mode(0, 2, 0);
    outb(PIT_CONTROL, 0x00);
    u32 first = pit_latched(0);
    pause_us(500);
    u32 again = pit_latched(0);
    check("latch-is-kept-until-read", first != again);
    outb(PIT_CONTROL, 0x00);
    pause_us(500);
    outb(PIT_CONTROL, 0x00);
    u32 early = pit_read(0);
    u32 late = pit_latched(0);
    check("second-latch-is-ignored", ((early - late) & 0xffff) > 300);
    outb(PIT_CONTROL, 0xc2);
    u8 status = inb(PIT_CHANNEL0);
    early = pit_read(0);
    late = pit_latched(0);
    check_is("read-back-gives-the-status-first", status & 0x3f, 0x34);
    check("read-back-then-the-count", ((early - late) & 0xffff) < 0x8000);
    outb(PIT_CONTROL, 0xd2);
    early = pit_read(0);
    late = pit_latched(0);
    check("read-back-of-the-count-alone", ((early - late) & 0xffff) < 0x8000);
}

static void square_wave(void)
{
    u32 high = 0, low = 0;
    pit_mode(2, 3, 0x1000);
    u64 start = rdtsc();
    while (!is_over(start, 20000))
        if (inb(PORT_61) & 0x20)
            high++;
        else
            low++;
    check("port61-mode-3-is-a-square-wave", high > low / 3 && low > high / 3);
    u8 before = inb(PORT_61) & 0x10;
    start = rdtsc();
    while ((inb(PORT_61) & 0x10) == before)
        if (is_over(start, 1000000))
            break;
    check("port61-refresh-bit-toggles", !is_over(start, 900000));
}

/* Channel 2: its gate and its output are bits of port 0x61. */
static void channel2(void)
{
    u8 gate = inb(PORT_61) & 0x0c;
    outb(PORT_61, gate);
    u8 closed = inb(PORT_61);
    outb(PORT_61, gate | 1);
    if ((closed & 1) || !(inb(PORT_61) & 1)) {
        skipped("port61", "no such port");
        return;
    }
    outb(PORT_61, gate);
    pit_mode(2, 0, 0x7fff);
    u32 first = pit_latched(2);
    pause_us(500);
    check("port61-closed-gate-stops-mode-0", pit_latched(2) == first);
    check_is("port61-output-is-low-in-mode-0", inb(PORT_61) & 0x20, 0);
    pit_mode(2, 0, 11932);
    apic_write(APIC_TMICT, LONG_COUNT);
    outb(PORT_61, gate | 1);
    u32 begin = apic_read(APIC_TMCCT);
    u64 start = rdtsc();
    while (!(inb(PORT_61) & 0x20))
        if (is_over(start, 1000000))
            break;
    u32 ticks = begin - apic_read(APIC_TMCCT);
    u64 us = (u64)ticks * 1000 / (apic_timer_hz() / 1000);
    check("port61-mode-0-takes-10-ms", us > 9000 && us < 14000);
    check_is("port61-output-stays-high", inb(PORT_61) & 0x20, 0x20);
    first = pit_latched(2);
    pause_us(500);
    check("port61-count-goes-on-past-zero", pit_latched(2) != first);
    pit_mode(2, 0, 0xffff);
    check_is("port61-new-count-lowers-the-output", inb(PORT_61) & 0x20, 0);
    square_wave();
    outb(PORT_61, gate);
}

/* The interrupts of `us` microseconds. */
static u32 count_for(u64 us)
{
    log_total = 0;
    idle_us(us);
    return log_total;
}

static void interrupts(const char *const *names)
{
    log_clear();
    pit_mode(0, 0, 2000);
    take(1);
    check("mode-0-fires", log_count(0) == 1);
    check_is(names[0], count_for(5000), 0);
    outb(PIT_CONTROL, 0x30);
    check_is("mode-0-without-a-count-is-silent", count_for(3000), 0);
    /* The control word raises OUT, which may be an interrupt of its own. */
    outb(PIT_CONTROL, 0x38);
    count_for(1000);
    log_clear();
    outb(PIT_CHANNEL0, 2000 & 0xff);
    outb(PIT_CHANNEL0, 2000 >> 8);
    take(1);
    check("mode-4-fires", log_count(0) == 1);
    check_is(names[1], count_for(5000), 0);
    pit_mode(0, 2, PIT_HZ / 250);
    u32 seen = count_for(200000);
    check_range(names[2], seen, 40, 60);
    pit_mode(0, 3, PIT_HZ / 250);
    seen = count_for(200000);
    check_range(names[3], seen, 40, 60);
    pit_mode(0, 0, 0xffff);
    count_for(1000);
    outb(PIT_CONTROL, 0x30);
    check_is(names[4], count_for(5000), 0);
}

void image_main(void)
{
    static const char *const by_pic[] = {"pic-mode-0-fires-once", "pic-mode-4-fires-once",
        "pic-mode-2-fires-at-its-rate", "pic-mode-3-fires-at-its-rate", "pic-mode-change-stops-it"};
    static const char *const by_ioapic[] = {"ioapic-mode-0-fires-once", "ioapic-mode-4-fires-once",
        "ioapic-mode-2-fires-at-its-rate", "ioapic-mode-3-fires-at-its-rate",
        "ioapic-mode-change-stops-it"};
    apic_choose();
    irq_open();
    apic_open();
    check("present", is_there());
    if (!is_there())
        check_end();
    registers();
    channel2();
    pic_open(0x20, 0x28);
    irq_hook = pic_hook;
    lint0_open();
    outb(PIC1_DATA, 0xfe);
    interrupts(by_pic);
    outb(PIC1_DATA, 0xff);
    lint0_close();
    irq_hook = NULL;
    if (ioapic_is_there() && ioapic_find_pit()) {
        ioapic_set(ioapic_pit_pin, 0x30, 0);
        interrupts(by_ioapic);
        ioapic_set(ioapic_pit_pin, IOAPIC_MASKED, 0);
    } else {
        check("ioapic-has-the-pit", false);
    }
    check_end();
}
