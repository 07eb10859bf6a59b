/*
 * memtrace.c - QEMU TCG plugin: the memory accesses of a guest, into one flat file for each window.
 *
 * Written for plugin API version 1; run with QEMU 7.2 (Debian 12), which has plugins compiled in but comes
 * without qemu-plugin.h, so the few declarations that are needed stand below.
 *
 *   gcc -O2 -fPIC -shared -Wall -o memtrace.so memtrace.c
 *   qemu-system-x86_64 -accel tcg,thread=single ... -plugin ./memtrace.so,out=PREFIX[,max=N][,user=on]
 *
 * Guest user space switches the recording with an ordinary NOP, nopl 0x4b5452NN(%rax), that is the bytes
 * 0f 1f 80 NN 52 54 4b:
 *
 *   NN = 01      open a window    -> PREFIX.<k>.bin, k = 0, 1, ...
 *   NN = 02      close the window -> PREFIX.<k>.json (counters)
 *   NN = 10..ff  put a mark into the stream
 *
 * Before the first window only that NOP is instrumented, so the boot runs at full speed; the translated code
 * is thrown away once, when the first window opens. (Not again when one closes: in QEMU 7.2 a helper may then
 * still hold a pointer to the freed list of callbacks.)
 *
 * File: 8 bytes "pwcaptur", u32 version 2, u32 number of CPUs, then little-endian u64 words:
 *
 *   bits 0..56   virtual address (sign-extend bit 56: whole with 4- and 5-level tables)
 *   bits 57..59  log2 of the size in bytes
 *   bit  60      store
 *   bit  61      the instruction lies in the kernel half
 *   bit  62      instruction fetch; only the first one after a change of 4 KiB code page is recorded
 *   bit  63      a note: bits 0..7 say which, bits 8..15 hold a CPU
 *                  01 what follows was done by that CPU
 *                  02 that CPU writes CR3    03 writes CR4    04 executes INVLPG or INVPCID
 *                  10..ff the guest's own marks
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- plugin API v1: what is used here ---------------------------------- */
#define EXPORT __attribute__((visibility("default")))
typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
typedef struct {
    const char *target_name;
    struct { int min, cur; } version;
    bool system_emulation;
    union { struct { int smp_vcpus, max_vcpus; } system; };
} qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { CB_NO_REGS = 0 };
enum { MEM_RW = 3 };
enum { INLINE_ADD_U64 = 0 };
typedef void (*simple_cb)(qemu_plugin_id_t);
typedef void (*udata_cb)(qemu_plugin_id_t, void *);
typedef void (*tb_trans_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*vcpu_udata_cb)(unsigned, void *);
typedef void (*vcpu_mem_cb)(unsigned, qemu_plugin_meminfo_t, uint64_t, void *);
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, tb_trans_cb);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, vcpu_udata_cb, int, void *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, vcpu_udata_cb, int, void *);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, vcpu_mem_cb, int, int, void *);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, udata_cb, void *);
extern void qemu_plugin_reset(qemu_plugin_id_t, simple_cb);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
extern bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);

EXPORT int qemu_plugin_version = 1;

/* ---- state --------------------------------------------------------------*/
#define ADDR_MASK   ((1ull << 57) - 1)
#define SIZE_SHIFT  57
#define REC_STORE   (1ull << 60)
#define REC_KERNEL  (1ull << 61)
#define REC_FETCH   (1ull << 62)
#define REC_NOTE    (1ull << 63)
#define MAX_CPUS    256
enum { NOTE_CPU = 1, NOTE_CR3, NOTE_CR4, NOTE_INVLPG, FIRST_MARK = 0x10 };

static qemu_plugin_id_t my_id;
static char prefix[512] = "memtrace";
static uint64_t max_rec = UINT64_MAX;
static bool want_user;          /* record user-half addresses too */
static unsigned n_cpus;

static bool on;                 /* inside a window */
static bool instrumented;       /* translated code has the callbacks */
static bool full;               /* max_rec reached in this window */
static int window;              /* number of the current or next window */
static FILE *out;
static unsigned last_cpu;       /* whom the latest record belongs to; MAX_CPUS: nobody */
static uint64_t last_code_page[MAX_CPUS];
static struct counters {
    uint64_t insn_kernel, insn_user;            /* instructions executed */
    uint64_t load_k, store_k, load_u, store_u;  /* accesses seen, by half of the address space */
    uint64_t insn_at_full;                      /* instructions when max was reached */
    uint64_t records;                           /* accesses and fetches recorded */
} c;

#define BUF_WORDS (1u << 17)
static uint64_t buf[BUF_WORDS];
static unsigned n_buf;

static void must(bool ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static void drain(void)
{
    must(fwrite(buf, 8, n_buf, out) == n_buf, "memtrace: write");
    n_buf = 0;
}

static inline void put_word(uint64_t word)
{
    buf[n_buf++] = word;
    if (n_buf == BUF_WORDS)
        drain();
}

static inline void put(unsigned cpu, uint64_t rec)
{
    if (full)
        return;
    if (cpu != last_cpu) {
        last_cpu = cpu;
        put_word(REC_NOTE | NOTE_CPU | (uint64_t)cpu << 8);
    }
    put_word(rec);
    if (++c.records >= max_rec) {
        full = true;
        c.insn_at_full = c.insn_kernel + c.insn_user;
    }
}

/* ---- callbacks while a window is open -----------------------------------*/
static void on_mem(unsigned cpu, qemu_plugin_meminfo_t info, uint64_t va, void *pc)
{
    bool st = qemu_plugin_mem_is_store(info);

    if (!on)
        return;
    if (va >> 63) {
        st ? c.store_k++ : c.load_k++;
    } else {
        st ? c.store_u++ : c.load_u++;
        if (!want_user)
            return;
    }
    put(cpu, (va & ADDR_MASK) | (uint64_t)qemu_plugin_mem_size_shift(info) << SIZE_SHIFT |
        (st ? REC_STORE : 0) | ((uintptr_t)pc >> 63 ? REC_KERNEL : 0));
}

static void on_code(unsigned cpu, void *pcp)
{
    uint64_t pc = (uintptr_t)pcp;

    if (!on || pc >> 12 == last_code_page[cpu])
        return;
    last_code_page[cpu] = pc >> 12;
    if (pc >> 63)
        put(cpu, (pc & ADDR_MASK) | REC_FETCH | REC_KERNEL);
    else if (want_user)
        put(cpu, (pc & ADDR_MASK) | REC_FETCH);
}

static void on_flush(unsigned cpu, void *note)
{
    if (on && !full)
        put_word(REC_NOTE | (uintptr_t)note | (uint64_t)cpu << 8);
}

static void install_tracing(qemu_plugin_id_t id);

static void open_window(void)
{
    char name[600];
    uint32_t head[2] = { 2, n_cpus };

    snprintf(name, sizeof name, "%s.%d.bin", prefix, window);
    out = fopen(name, "wb");
    must(out && fwrite("pwcaptur", 8, 1, out) == 1 && fwrite(head, 8, 1, out) == 1, name);
    memset(&c, 0, sizeof c);
    memset(last_code_page, 0, sizeof last_code_page);
    last_cpu = MAX_CPUS;
    full = false;
    on = true;
    if (!instrumented) {
        instrumented = true;
        qemu_plugin_reset(my_id, install_tracing);
    }
}

static void close_window(void)
{
    char name[600];
    FILE *f;

    on = false;
    drain();
    must(fclose(out) == 0, "memtrace: close");
    snprintf(name, sizeof name, "%s.%d.json", prefix, window);
    f = fopen(name, "w");
    must(f, name);
    fprintf(f, "{\"records\": %" PRIu64 ", \"truncated\": %s,\n"
            " \"insn_kernel\": %" PRIu64 ", \"insn_user\": %" PRIu64 ",\n"
            " \"insn_at_truncation\": %" PRIu64 ",\n"
            " \"load_kernel_half\": %" PRIu64 ", \"store_kernel_half\": %" PRIu64 ",\n"
            " \"load_user_half\": %" PRIu64 ", \"store_user_half\": %" PRIu64 "}\n",
            c.records, full ? "true" : "false", c.insn_kernel, c.insn_user,
            c.insn_at_full, c.load_k, c.store_k, c.load_u, c.store_u);
    must(fclose(f) == 0, name);
    window++;
}

static void on_magic(unsigned cpu, void *arg)
{
    unsigned nn = (uintptr_t)arg;

    if (nn == 1 && !on)
        open_window();
    else if (nn == 2 && on)
        close_window();
    else if (nn >= FIRST_MARK && on && !full)
        put_word(REC_NOTE | nn | (uint64_t)cpu << 8);
}

/* ---- translation --------------------------------------------------------*/
static bool hook_magic(struct qemu_plugin_insn *in)
{
    static const unsigned char head[3] = { 0x0f, 0x1f, 0x80 };
    static const unsigned char tail[3] = { 0x52, 0x54, 0x4b };
    const unsigned char *b;

    if (qemu_plugin_insn_size(in) != 7)
        return false;
    b = qemu_plugin_insn_data(in);
    if (memcmp(b, head, 3) || memcmp(b + 4, tail, 3))
        return false;
    qemu_plugin_register_vcpu_insn_exec_cb(in, on_magic, CB_NO_REGS, (void *)(uintptr_t)b[3]);
    return true;
}

/* Which note an instruction that changes TLB entries deserves, by its opcode (SDM volume 2); 0 for others. */
static unsigned flush_note(const struct qemu_plugin_insn *in)
{
    const unsigned char *b = qemu_plugin_insn_data(in), *end = b + qemu_plugin_insn_size(in);

    if (end - b >= 5 && !memcmp(b, "\x66\x0f\x38\x82", 4))
        return NOTE_INVLPG;                     /* INVPCID */
    if (end - b >= 6 && b[0] == 0x66 && b[1] >> 4 == 4 && !memcmp(b + 2, "\x0f\x38\x82", 3))
        return NOTE_INVLPG;
    if (b < end && b[0] >> 4 == 4)
        b++;                                    /* REX */
    if (end - b < 3 || b[0] != 0x0f)
        return 0;
    if (b[1] == 0x22)                           /* MOV to a control register: its number is in ModRM.reg */
        return (b[2] >> 3 & 7) == 3 ? NOTE_CR3 : (b[2] >> 3 & 7) == 4 ? NOTE_CR4 : 0;
    if (b[1] == 0x01 && (b[2] >> 3 & 7) == 7 && b[2] >> 6 != 3)
        return NOTE_INVLPG;
    return 0;
}

static void trans_idle(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    size_t n = qemu_plugin_tb_n_insns(tb);

    if (n && qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0)) >> 63)
        return;                 /* the magic is only honoured in user space */
    for (size_t i = 0; i < n; i++)
        hook_magic(qemu_plugin_tb_get_insn(tb, i));
}

static void trans_tracing(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    size_t n = qemu_plugin_tb_n_insns(tb);
    uint64_t page = 0;

    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *in = qemu_plugin_tb_get_insn(tb, i);
        uint64_t pc = qemu_plugin_insn_vaddr(in);
        unsigned note;

        if (i == 0) {
            qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64,
                pc >> 63 ? &c.insn_kernel : &c.insn_user, n);
            qemu_plugin_register_vcpu_tb_exec_cb(tb, on_code, CB_NO_REGS, (void *)(uintptr_t)pc);
        } else if (pc >> 12 != page) {
            qemu_plugin_register_vcpu_insn_exec_cb(in, on_code, CB_NO_REGS, (void *)(uintptr_t)pc);
        }
        page = pc >> 12;
        if (!(pc >> 63) && hook_magic(in))
            continue;
        if ((note = flush_note(in)))
            qemu_plugin_register_vcpu_insn_exec_cb(in, on_flush, CB_NO_REGS, (void *)(uintptr_t)note);
        qemu_plugin_register_vcpu_mem_cb(in, on_mem, CB_NO_REGS, MEM_RW, (void *)(uintptr_t)pc);
    }
}

static void at_exit(qemu_plugin_id_t id, void *p)
{
    if (on)
        close_window();
}

static void install_idle(qemu_plugin_id_t id)
{
    qemu_plugin_register_vcpu_tb_trans_cb(id, trans_idle);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
}

static void install_tracing(qemu_plugin_id_t id)
{
    qemu_plugin_register_vcpu_tb_trans_cb(id, trans_tracing);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    my_id = id;
    if (!info->system_emulation || info->system.smp_vcpus > MAX_CPUS) {
        fprintf(stderr, "memtrace: needs system emulation with at most %d CPUs\n", MAX_CPUS);
        return -1;
    }
    n_cpus = info->system.smp_vcpus;
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "out=", 4)) {
            snprintf(prefix, sizeof prefix, "%s", argv[i] + 4);
        } else if (!strncmp(argv[i], "max=", 4)) {
            max_rec = strtoull(argv[i] + 4, NULL, 0);
        } else if (!strcmp(argv[i], "user=on")) {
            want_user = true;
        } else {
            fprintf(stderr, "memtrace: unknown argument %s\n", argv[i]);
            return -1;
        }
    }
    install_idle(id);
    return 0;
}
