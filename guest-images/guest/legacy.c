/*
 * The controllers beside the local APIC. Owns nothing but where the PIT's
 * interrupt was found.
 */
#include "legacy.h"

#define LINT_EXTINT 0x700
#define LVT_MASKED 0x10000
#define FIND_TURNS 8
#define FIND_US 10000
#define SECOND_US 1000000

u32 ioapic_pit_pin;

void pic_open(u8 base1, u8 base2)
{
    outb(PIC1, 0x11);
    outb(PIC1_DATA, base1);
    outb(PIC1_DATA, 4);
    outb(PIC1_DATA, 1);
    outb(PIC2, 0x11);
    outb(PIC2_DATA, base2);
    outb(PIC2_DATA, 2);
    outb(PIC2_DATA, 1);
    outb(PIC1_DATA, 0xff);
    outb(PIC2_DATA, 0xff);
}

void pic_hook(u32 vector)
{
    if (vector >= 0x20 && vector < 0x30) {
        if (vector >= 0x28)
            outb(PIC2, 0x20);
        outb(PIC1, 0x20);
    } else if (vector != VECTOR_NMI && vector != VECTOR_SPURIOUS) {
        apic_eoi();
    }
}

u8 pic_irr(u16 port)
{
    outb(port, 0x0a);
    return inb(port);
}

u8 pic_isr(u16 port)
{
    outb(port, 0x0b);
    return inb(port);
}

bool pic_wait_irr(u8 lines)
{
    u64 start = rdtsc();
    while (!(pic_irr(PIC1) & lines))
        if (is_over(start, SECOND_US))
            return false;
    return true;
}

bool wait_irr(u32 vector, u64 us)
{
    u64 start = rdtsc();
    while (!vector_bit(APIC_IRR, vector))
        if (is_over(start, us))
            return false;
    return true;
}

void lint0_open(void)
{
    apic_write(APIC_LVT_LINT0, LINT_EXTINT);
}

void lint0_close(void)
{
    apic_write(APIC_LVT_LINT0, LVT_MASKED | LINT_EXTINT);
}

void irq0_raise(void)
{
    outb(PIT_CONTROL, 0x30);
    outb(PIT_CHANNEL0, 100);
    outb(PIT_CHANNEL0, 0);
    /* Where a thread of the host raises it, that may come late. */
    pause_us(8000);
}

static volatile u32 *ioapic_register(u32 offset)
{
    return (volatile u32 *)(IOAPIC_BASE + offset);
}

u32 ioapic_read(u32 reg)
{
    *ioapic_register(0) = reg;
    return *ioapic_register(0x10);
}

void ioapic_write(u32 reg, u32 value)
{
    *ioapic_register(0) = reg;
    *ioapic_register(0x10) = value;
}

bool ioapic_is_there(void)
{
    u32 version = ioapic_read(IOAPIC_VERSION);
    return version != 0 && version != 0xffffffff;
}

u32 ioapic_pins(void)
{
    return (ioapic_read(IOAPIC_VERSION) >> 16 & 0xff) + 1;
}

void ioapic_set(u32 pin, u32 low, u8 destination)
{
    ioapic_write(0x10 + 2 * pin, IOAPIC_MASKED);
    ioapic_write(0x11 + 2 * pin, (u32)destination << 24);
    ioapic_write(0x10 + 2 * pin, low);
}

u32 ioapic_get(u32 pin)
{
    return ioapic_read(0x10 + 2 * pin);
}

void ioapic_mask_all(void)
{
    for (u32 pin = 0; pin < ioapic_pins() && pin < 32; pin++)
        ioapic_set(pin, IOAPIC_MASKED, 0);
}

bool ioapic_find_pit(void)
{
    cli();
    ioapic_mask_all();
    outb(PIT_CONTROL, 0x30);
    for (u32 turn = 0; turn < FIND_TURNS; turn++) {
        ioapic_pit_pin = turn % 2 * 2;
        log_clear();
        ioapic_set(ioapic_pit_pin, 0x30, 0);
        irq0_raise();
        bool found = wait_irr(0x30, FIND_US * turn);
        take(found ? 1 : 0);
        ioapic_set(ioapic_pit_pin, IOAPIC_MASKED, 0);
        if (found)
            return true;
    }
    return false;
}

u8 rtc_read(u8 reg)
{
    outb(RTC_INDEX, reg);
    return inb(RTC_DATA);
}

void rtc_write(u8 reg, u8 value)
{
    outb(RTC_INDEX, reg);
    outb(RTC_DATA, value);
}

u32 rtc_binary(u8 value)
{
    return rtc_read(RTC_REG_B) & RTC_B_BINARY ? value : (value >> 4) * 10u + (value & 15);
}
