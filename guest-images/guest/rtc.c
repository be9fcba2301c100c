/*
 * The clock of an MC146818: its registers, and its interrupt, IRQ 8, by way of
 * the I/O APIC where there is one, else of the 8259A (Motorola MC146818A
 * datasheet).
 */
#include "legacy.h"

const char image_name[] = "rtc";

#define REG_A 0x0a
#define REG_B RTC_REG_B
#define REG_C 0x0c
#define REG_D 0x0d
#define UIP 0x80
#define B_SET 0x80
#define B_PERIODIC 0x40
#define B_ALARM 0x20
#define B_UPDATE 0x10
#define B_BINARY RTC_B_BINARY
#define B_24_HOURS 0x02

/* What the interrupts said: written by the handler. */
static volatile u32 flags, periods, updates, alarms;
static bool by_ioapic;

static void on_irq8(u32 vector)
{
    (void)vector;
    u8 c = rtc_read(REG_C);
    flags |= c;
    periods += c >> 6 & 1;
    alarms += c >> 5 & 1;
    updates += c >> 4 & 1;
    if (by_ioapic)
        apic_eoi();
    else
        pic_hook(0x28);
}

/* Whether the update that makes a second comes within two. */
static bool wait_second(void)
{
    u8 second = rtc_read(0);
    u64 start = rdtsc();
    while (rtc_read(0) == second) {
        if (is_over(start, 2000000))
            return false;
        idle_us(10000);
    }
    return true;
}

static void date(void)
{
    u32 second = rtc_binary(rtc_read(0)), minute = rtc_binary(rtc_read(2));
    u32 hour = rtc_binary(rtc_read(4) & 0x7f), weekday = rtc_binary(rtc_read(6));
    u32 day = rtc_binary(rtc_read(7)), month = rtc_binary(rtc_read(8));
    u32 year = rtc_binary(rtc_read(9)), century = rtc_binary(rtc_read(0x32));
    check("second-minute-hour-are-plausible", second < 60 && minute < 60 && hour < 24);
    check("day-and-month-are-plausible",
          day >= 1 && day <= 31 && month >= 1 && month <= 12 && weekday >= 1 && weekday <= 7);
    check("year-is-plausible", year >= 20 && year <= 99);
    check_is("century", century, 20);
}

static void registers(void)
{
    rtc_write(REG_B, B_24_HOURS);
    check_is("d-says-valid", rtc_read(REG_D), 0x80);
    check_is("a-keeps-rate", (rtc_write(REG_A, 0x26), rtc_read(REG_A) & 0x7f), 0x26);
    check_is("b-keeps-24-hours", rtc_read(REG_B), B_24_HOURS);
    rtc_write(0x40, 0xa5);
    rtc_write(0x7f, 0x5a);
    check_is("memory-keeps-a-byte", rtc_read(0x40), 0xa5);
    check_is("memory-has-128-bytes", rtc_read(0x7f), 0x5a);
    outb(RTC_INDEX, 0x80 | 0x40);
    check_is("index-bit-7-is-not-address", inb(RTC_DATA), 0xa5);
    date();
    /* UIP shows for 244 us and the update itself, once a second. */
    u64 start = rdtsc();
    bool shows = false;
    while (!is_over(start, 3300000) && !shows)
        shows = rtc_read(REG_A) & UIP;
    check("uip-shows", shows);
}

static void stopping(void)
{
    rtc_write(REG_B, B_SET | B_24_HOURS);
    rtc_write(0, 0x58);
    rtc_write(2, 0x59);
    rtc_write(4, 0x23);
    rtc_write(6, 0x05);
    rtc_write(7, 0x29);
    rtc_write(8, 0x02);
    rtc_write(9, 0x24);
    check_is("set-keeps-the-second", rtc_read(0), 0x58);
    check_is("set-shows-no-uip", rtc_read(REG_A) & UIP, 0);
    rtc_write(0, 0x59);
    rtc_write(REG_B, B_24_HOURS);
    check("clock-runs-on-from-what-was-set", wait_second());
    check_is("midnight-minute", rtc_read(2), 0);
    check_is("midnight-hour", rtc_read(4), 0);
    check_is("leap-day-goes-to-march-day", rtc_read(7), 1);
    check_is("leap-day-goes-to-march-month", rtc_read(8), 3);
    check_is("midnight-weekday", rtc_read(6), 6);
    rtc_write(REG_B, B_SET | B_24_HOURS | B_BINARY);
    rtc_write(4, 23);
    check_is("binary-hour-is-kept", rtc_read(4), 23);
    rtc_write(REG_B, B_24_HOURS);
}

static void count_for(u64 us)
{
    rtc_read(REG_C);
    flags = periods = updates = alarms = 0;
    log_total = 0;
    idle_us(us);
}

static void periodic(void)
{
    rtc_read(REG_C);
    check_is("c-is-clear-after-reading", rtc_read(REG_C), 0);
    count_for(5000);
    check_is("no-interrupt-is-enabled", log_total, 0);
    rtc_write(REG_A, 0x26);
    rtc_write(REG_B, B_24_HOURS | B_PERIODIC);
    count_for(200000);
    check_range("periodic-comes-1024-times-a-second", periods, 150, 250);
    check_is("periodic-flag", flags & 0xe0, 0xc0);
    rtc_write(REG_A, 0x2a);
    count_for(250000);
    check_range("periodic-comes-64-times-a-second", periods, 13, 19);
    rtc_write(REG_B, B_24_HOURS);
    idle_us(5000);
    count_for(50000);
    check_is("periodic-stops", log_total, 0);
    rtc_write(REG_A, 0x26);
}

/* The alarm is for the second after the one that is set: half a second to two
 * from now. */
static void alarm(void)
{
    rtc_write(REG_B, B_SET | B_24_HOURS);
    rtc_write(0, 0x10);
    rtc_write(1, 0x11);
    rtc_write(3, 0xff);
    rtc_write(5, 0xff);
    rtc_write(REG_B, B_24_HOURS | B_ALARM | B_UPDATE);
    count_for(2300000);
    check_range("update-ends-come-each-second", updates, 1, 3);
    check_is("alarm-comes-once", alarms, 1);
    check_is("alarm-and-update-flags", flags & 0xb0, 0xb0);
    rtc_write(REG_B, B_24_HOURS);
}

void image_main(void)
{
    apic_choose();
    irq_open();
    apic_open();
    bool there = (rtc_read(REG_D), inb(RTC_DATA) == 0x80);
    check("present", there);
    if (!there)
        check_end();
    registers();
    stopping();
    pic_open(0x20, 0x28);
    by_ioapic = ioapic_is_there();
    if (by_ioapic) {
        ioapic_mask_all();
        ioapic_set(8, 0x38, 0);
    } else {
        lint0_open();
        outb(PIC1_DATA, 0xfb);
        outb(PIC2_DATA, 0xfe);
    }
    irq_hook = on_irq8;
    periodic();
    alarm();
    check_end();
}
