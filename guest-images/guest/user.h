/* user.S: code for CPL 3, which a host runs at full speed where it must
 * emulate the kernel's. */
#ifndef USER_H
#define USER_H

#include "kernel.h"

/* Code to enter, not functions to call. */
extern const u8 user_hang[], user_count[];

/* Once, before user_enter: vCPU 0 only. Takes the #UD gate. */
void user_open(void);

/* Enters `code` at CPL 3 with IF=0, rdi = a and rsi = b; returns when it
 * executes UD2. */
void user_enter(const u8 *code, u64 a, u64 b);

#endif
