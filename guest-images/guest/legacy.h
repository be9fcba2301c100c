/* legacy.c: the controllers beside the local APIC: 8259A pair, I/O APIC, and the
 * ports of the 8254 and of the clock. */
#ifndef LEGACY_H
#define LEGACY_H

#include "check.h"

#define PIC1 0x20
#define PIC1_DATA 0x21
#define PIC2 0xa0
#define PIC2_DATA 0xa1
#define ELCR1 0x4d0
#define PIT_CHANNEL0 0x40
#define PIT_CONTROL 0x43
#define PORT_61 0x61
#define RTC_INDEX 0x70
#define RTC_DATA 0x71

/* Both 8259A: ICW1 to ICW4 with these vector bases, everything masked. */
void pic_open(u8 base1, u8 base2);
/* For irq_hook: non-specific EOI to the 8259A that it came from, given that the
 * vectors are 0x20 and 0x28 on; EOI to the local APIC for others. */
void pic_hook(u32 vector);
u8 pic_irr(u16 port);
u8 pic_isr(u16 port);
/* Waits, at most a second, until one of these lines of the first 8259A asks. */
bool pic_wait_irr(u8 lines);
/* Waits with IF=0 until the local APIC has that request. */
bool wait_irr(u32 vector, u64 us);
/* The 8259A's output enters by LINT0 as ExtINT. */
void lint0_open(void);
void lint0_close(void);
/* A falling and a rising edge of IRQ 0, by the PIT's mode 0; waits for it. */
void irq0_raise(void);

#define IOAPIC_BASE 0xfec00000ul
#define IOAPIC_ID 0
#define IOAPIC_VERSION 1
#define IOAPIC_MASKED 0x10000
#define IOAPIC_LEVEL 0x8000
#define IOAPIC_REMOTE_IRR 0x4000
u32 ioapic_read(u32 reg);
void ioapic_write(u32 reg, u32 value);
bool ioapic_is_there(void);
u32 ioapic_pins(void);
/* Entry `pin`: its low half, and the destination. */
void ioapic_set(u32 pin, u32 low, u8 destination);
u32 ioapic_get(u32 pin);
void ioapic_mask_all(void);
/* Finds the pin that the PIT drives, 2 or 0, by its interrupt. */
bool ioapic_find_pit(void);
extern u32 ioapic_pit_pin;

u8 rtc_read(u8 reg);
void rtc_write(u8 reg, u8 value);
#define RTC_REG_B 0x0b
#define RTC_B_BINARY 0x04
/* What a date register says, BCD or not. */
u32 rtc_binary(u8 value);

#endif
