/*
 * Text out of the first serial port. Owns nothing but the port; polls, needs
 * no interrupt. A port that is not there reads all ones and is never full.
 */
#include "kernel.h"

#define COM1 0x3f8
#define LSR_THRE 0x20

static void put_char(char c)
{
    for (u32 tries = 0; tries < 1000; tries++)
        if (inb(COM1 + 5) & LSR_THRE)
            break;
    outb(COM1, (u8)c);
}

void put(const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            put_char('\r');
        put_char(*text);
    }
}

static void put_base(u64 value, u32 base)
{
    char digits[21];
    u32 at = sizeof(digits) - 1;
    digits[at] = 0;
    do {
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    put(digits + at);
}

void put_u64(u64 value)
{
    put_base(value, 10);
}

void put_hex(u64 value)
{
    put("0x");
    put_base(value, 16);
}

void put_tenths(u64 tenths)
{
    put_base(tenths / 10, 10);
    put_char('.');
    put_base(tenths % 10, 10);
}
