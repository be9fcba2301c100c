/*
 * The kernel command line: `key=value` words. Owns a copy of it, as the boot
 * loader's lies in memory that the AP trampoline may overwrite. Unknown words
 * are ignored; of a key given twice the last one counts.
 */
#include "kernel.h"

#define CMDLINE_BYTES 1024
#define BOOT_PVH 0

/* hvm_start_info.cmdline_paddr, boot_params.hdr.cmd_line_ptr */
#define PVH_CMDLINE 24
#define ZERO_PAGE_CMDLINE 0x228

char cmdline[CMDLINE_BYTES];

void cmdline_load(u64 kind, u64 info)
{
    u64 at = 0;
    if (info == 0 || info >= IDENTITY_BYTES - 4096)
        return;
    if (kind == BOOT_PVH)
        at = *(const u64 *)(info + PVH_CMDLINE);
    else
        at = *(const u32 *)(info + ZERO_PAGE_CMDLINE);
    if (at == 0 || at >= IDENTITY_BYTES - CMDLINE_BYTES)
        return;
    for (u32 i = 0; i < CMDLINE_BYTES - 1; i++) {
        cmdline[i] = ((const char *)at)[i];
        if (!cmdline[i])
            break;
    }
}

bool param(const char *key, const char **value)
{
    bool found = false;
    const char *at = cmdline;
    while (*at) {
        while (*at == ' ')
            at++;
        const char *k = key;
        while (*k && *at == *k) {
            at++;
            k++;
        }
        if (!*k && *at == '=') {
            *value = at + 1;
            found = true;
        }
        while (*at && *at != ' ')
            at++;
    }
    return found;
}

u64 param_u64(const char *key, u64 otherwise)
{
    const char *at;
    u64 value = 0;
    if (!param(key, &at) || *at < '0' || *at > '9')
        return otherwise;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (value > (~0ul - 9) / 10)
            return otherwise;
        value = value * 10 + (u64)(*at - '0');
    }
    return value;
}

bool param_is(const char *key, const char *value)
{
    const char *at;
    if (!param(key, &at))
        return false;
    while (*value && *at == *value) {
        at++;
        value++;
    }
    return !*value && (*at == ' ' || *at == 0);
}
