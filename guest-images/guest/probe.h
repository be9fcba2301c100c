/* smp_probe.S: real-mode code that an AP is started at, and what it notes, at
 * these offsets of its page. */
#ifndef PROBE_H
#define PROBE_H

#define PROBE_PAGE      0x9000
#define PROBE_OTHER_PAGE 0xa000
#define PROBE_COUNT     0x800
#define PROBE_CS        0x804
#define PROBE_DS        0x806
#define PROBE_ES        0x808
#define PROBE_SS        0x80a
#define PROBE_EAX       0x80c
#define PROBE_EDX       0x810
#define PROBE_CR0       0x814

#ifndef __ASSEMBLER__
#include "kernel.h"

void probe_at(u64 page);
u32 count_at(u64 page);
/* Waits a second at most until the page was started so often, and a little for more. */
bool wait_count(u64 page, u32 count);
#endif

#endif
