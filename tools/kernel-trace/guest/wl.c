/*
 * wl.c - what runs in the guest: control of the recording, and workloads. A static binary.
 *
 *   wl begin NAME             snapshot of the address space, then open a window
 *   wl end NAME               close the window, then a snapshot again
 *   wl fdtable  FILES OPS     many open files, random fcntl() and lseek()
 *   wl udpflows FLOWS PASSES  UDP over loopback, one flow for each destination
 *   wl bpfhash  ENTRIES OPS   BPF hash map, look-ups from a JIT-compiled program
 *   wl bpfarray ENTRIES OPS   BPF array map, look-ups through the system call
 *   wl zramswap MIB OPS       swap on /dev/zram0, random touches of pages
 *
 * A workload sets itself up unrecorded, then does begin(), its work, end(). fdtable, bpfhash and bpfarray
 * share their operations among one thread on each CPU.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <pthread.h>
#include <sched.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "tracectl.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

static __thread uint64_t rng_state = 0x9e3779b97f4a7c15ull;
static uint64_t rnd(void)               /* xorshift64*, fixed seed */
{
    rng_state ^= rng_state >> 12;
    rng_state ^= rng_state << 25;
    rng_state ^= rng_state >> 27;
    return rng_state * 0x2545f4914f6cdd1dull;
}

static void die(const char *what)
{
    printf("##FAIL %s: %s\n", what, strerror(errno));
    fflush(stdout);
    exit(1);
}

static void put_file(int to, const char *name, const char *suffix, const char *file)
{
    char b[8192];
    int n = snprintf(b, sizeof b, "\n##BEGIN %s%s.%s\n", name, suffix, file);
    int fd;

    if (write(to, b, n) != n)
        die("put_file");
    snprintf(b, sizeof b, "/proc/%s", file);
    fd = open(b, O_RDONLY);
    while (fd >= 0 && (n = read(fd, b, sizeof b)) > 0)
        if (write(to, b, n) != n)
            die("put_file");
    close(fd);
    n = snprintf(b, sizeof b, "##END %s%s.%s\n", name, suffix, file);
    if (write(to, b, n) != n)
        die("put_file");
}

/* The region list and the host's page-table dump are taken at the same point,
 * with the workload's allocations alive. */
static void snap(const char *name, const char *suffix)
{
    char line[128];
    int fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
    int n = snprintf(line, sizeof line, "\n##SNAP %s%s\n", name, suffix);

    if (fd < 0)
        die("snap");
    put_file(fd, name, suffix, "vmallocinfo");
    put_file(fd, name, suffix, "meminfo");
    put_file(fd, name, suffix, "buddyinfo");
    if (write(fd, line, n) != n)
        die("snap");
    do {                                /* the host answers with one line */
        n = read(fd, line, sizeof line);
    } while (n <= 0 || !memchr(line, '\n', n));
    close(fd);
}

static void begin(const char *name)
{
    snap(name, "-begin");
    TRACE_START();
}

static void end(const char *name)
{
    TRACE_STOP();
    snap(name, "-end");
}

/* ---- one thread on each CPU ----------------------------------------------*/
struct share {
    pthread_t thread;
    uint64_t (*work)(const void *job, uint64_t ops);
    const void *job;
    uint64_t ops, sum;
    unsigned cpu;
};

static void *run_share(void *arg)
{
    struct share *s = arg;
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(s->cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        die("sched_setaffinity");
    rng_state += s->cpu * 0xd1342543de82ef95ull;
    s->sum = s->work(s->job, s->ops);
    return NULL;
}

/* Divide ops among the CPUs; the sum of what work() returns. */
static uint64_t on_all_cpus(uint64_t (*work)(const void *, uint64_t), const void *job, uint64_t ops)
{
    unsigned n = sysconf(_SC_NPROCESSORS_ONLN);
    struct share *shares = calloc(n, sizeof *shares);
    uint64_t sum = 0;

    if (n == 1)
        return work(job, ops);
    for (unsigned i = 0; i < n; i++) {
        shares[i] = (struct share){ .work = work, .job = job, .ops = ops / n, .cpu = i };
        if (pthread_create(&shares[i].thread, NULL, run_share, &shares[i]))
            die("pthread_create");
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(shares[i].thread, NULL);
        sum += shares[i].sum;
    }
    return sum;
}

/* ---- fd table -----------------------------------------------------------*/
struct fd_job {
    const unsigned *fds;
    unsigned n;
};

static uint64_t fd_work(const void *arg, uint64_t ops)
{
    const struct fd_job *job = arg;
    uint64_t sum = 0;

    for (uint64_t i = 0; i < ops; i++) {
        unsigned fd = job->fds[rnd() % job->n];

        if (i & 1)
            sum += fcntl(fd, F_GETFD);
        else
            sum += lseek(fd, 0, SEEK_CUR);
    }
    return sum;
}

static void fdtable(unsigned nfiles, uint64_t ops)
{
    const unsigned span = 1u << 20;
    struct rlimit rl = { span, span };
    unsigned *fds = malloc(nfiles * sizeof *fds), n = 0;
    uint64_t sum;
    FILE *f = fopen("/proc/sys/fs/nr_open", "w");

    if (f) {
        fprintf(f, "%u\n", span);
        fclose(f);
    }
    if (setrlimit(RLIMIT_NOFILE, &rl))
        die("setrlimit");
    for (unsigned i = 0; i < nfiles; i++) {
        int fd = open("/dev/null", O_RDWR), hi;
        unsigned want = 64 + (uint64_t)i * (span - 128) / nfiles;

        if (fd < 0)
            die("open");
        hi = fcntl(fd, F_DUPFD, want);
        if (hi < 0)
            die("F_DUPFD");
        close(fd);
        fds[n++] = hi;
    }
    begin("fdtable");
    sum = on_all_cpus(fd_work, &(struct fd_job){ fds, n }, ops);
    end("fdtable");
    printf("##INFO fdtable files=%u ops=%llu sum=%llu\n", n,
           (unsigned long long)ops, (unsigned long long)sum);
}

/* ---- UDP flows (connection tracking) --------------------------------------*/
static void udpflows(unsigned flows, unsigned passes)
{
    int rx = socket(AF_INET, SOCK_DGRAM, 0), tx = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(9000) };
    struct sockaddr_in s = { .sin_family = AF_INET, .sin_port = htons(9001) };
    uint64_t got = 0, sent = 0;
    char b[64] = "x";
    int big = 8 << 20;

    setsockopt(rx, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
    if (bind(rx, (void *)&a, sizeof a) || bind(tx, (void *)&s, sizeof s))
        die("bind");
    for (unsigned pass = 0; pass <= passes; pass++) {
        if (pass == 1) {                /* pass 0 creates the entries */
            begin("udpflows");
        }
        for (unsigned i = 0; i < flows; i++) {
            /* a full-period permutation of the flow numbers */
            unsigned k = (uint64_t)i * 2654435761u % flows;

            a.sin_addr.s_addr = htonl(0x7f010000u + k);
            if (sendto(tx, b, 32, 0, (void *)&a, sizeof a) == 32)
                sent++;
            if ((i & 15) == 15)
                while (recv(rx, b, sizeof b, MSG_DONTWAIT) > 0)
                    got++;
        }
        while (recv(rx, b, sizeof b, MSG_DONTWAIT) > 0)
            got++;
    }
    end("udpflows");
    printf("##INFO udpflows flows=%u passes=%u sent=%llu received=%llu\n", flows,
           passes, (unsigned long long)sent, (unsigned long long)got);
}

/* ---- BPF maps -------------------------------------------------------------*/
static long bpf(int cmd, union bpf_attr *at)
{
    return syscall(__NR_bpf, cmd, at, sizeof *at);
}

static int map_create(unsigned type, unsigned ks, unsigned vs, unsigned n)
{
    union bpf_attr at = { 0 };
    int fd;

    at.map_type = type;
    at.key_size = ks;
    at.value_size = vs;
    at.max_entries = n;
    fd = bpf(BPF_MAP_CREATE, &at);
    if (fd < 0)
        die("BPF_MAP_CREATE");
    return fd;
}

enum { PER_RUN = 512 };

static uint64_t hash_work(const void *prog, uint64_t ops)
{
    char pkt[64] = { 0 };
    uint64_t hits = 0;

    for (uint64_t i = 0; i < ops / PER_RUN; i++) {
        union bpf_attr at = { 0 };

        at.test.prog_fd = *(const int *)prog;
        at.test.data_in = (uintptr_t)pkt;
        at.test.data_size_in = sizeof pkt;
        at.test.repeat = 1;
        if (bpf(BPF_PROG_TEST_RUN, &at))
            die("BPF_PROG_TEST_RUN");
        hits += at.test.retval;
    }
    return hits;
}

static void bpfhash(unsigned entries, uint64_t ops)
{
    /* r6 = loop counter, r7 = hits; key (u64) at fp-8
     * key = (prandom() & mask); if lookup(map, &key) then value->count += 1 */
    int fd = map_create(BPF_MAP_TYPE_HASH, 8, 40, entries);
    struct bpf_insn p[] = {
        { BPF_ALU64 | BPF_MOV | BPF_K, 6, 0, 0, PER_RUN },
        { BPF_ALU64 | BPF_MOV | BPF_K, 7, 0, 0, 0 },
/* 2 */ { BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_get_prandom_u32 },
        { BPF_ALU64 | BPF_AND | BPF_K, 0, 0, 0, (int)(entries - 1) },
        { BPF_STX | BPF_MEM | BPF_DW, 10, 0, -8, 0 },
        { BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, fd },
        { 0, 0, 0, 0, 0 },
        { BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0 },
        { BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -8 },
        { BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem },
        { BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 4, 0 },
        { BPF_LDX | BPF_MEM | BPF_DW, 1, 0, 0, 0 },
        { BPF_ALU64 | BPF_ADD | BPF_K, 1, 0, 0, 1 },
        { BPF_STX | BPF_MEM | BPF_DW, 0, 1, 0, 0 },
        { BPF_ALU64 | BPF_ADD | BPF_K, 7, 0, 0, 1 },
        { BPF_ALU64 | BPF_SUB | BPF_K, 6, 0, 0, 1 },
        { BPF_JMP | BPF_JNE | BPF_K, 6, 0, -15, 0 },
        { BPF_ALU64 | BPF_MOV | BPF_X, 0, 7, 0, 0 },
        { BPF_JMP | BPF_EXIT, 0, 0, 0, 0 },
    };
    static char log[1 << 20];
    union bpf_attr at = { 0 };
    char val[40] = { 0 };
    uint64_t hits;
    int prog;

    for (uint64_t k = 0; k < entries; k++) {
        uint64_t key = k;

        memset(&at, 0, sizeof at);
        at.map_fd = fd;
        at.key = (uintptr_t)&key;
        at.value = (uintptr_t)val;
        if (bpf(BPF_MAP_UPDATE_ELEM, &at))
            die("BPF_MAP_UPDATE_ELEM");
    }
    memset(&at, 0, sizeof at);
    at.prog_type = BPF_PROG_TYPE_SCHED_CLS;
    at.insns = (uintptr_t)p;
    at.insn_cnt = sizeof p / sizeof p[0];
    at.license = (uintptr_t)"GPL";
    at.log_buf = (uintptr_t)log;
    at.log_size = sizeof log;
    at.log_level = 1;
    prog = bpf(BPF_PROG_LOAD, &at);
    if (prog < 0) {
        size_t l = strlen(log);

        puts(l > 500 ? log + l - 500 : log);
        die("BPF_PROG_LOAD");
    }
    begin("bpfhash");
    hits = on_all_cpus(hash_work, &prog, ops);
    end("bpfhash");
    printf("##INFO bpfhash entries=%u ops=%llu hits=%llu\n", entries,
           (unsigned long long)ops, (unsigned long long)hits);
}

struct array_job {
    int fd;
    unsigned entries;
};

static uint64_t array_work(const void *arg, uint64_t ops)
{
    const struct array_job *job = arg;
    char val[64];
    uint64_t ok = 0;

    for (uint64_t i = 0; i < ops; i++) {
        uint32_t key = rnd() % job->entries;
        union bpf_attr at = { 0 };

        at.map_fd = job->fd;
        at.key = (uintptr_t)&key;
        at.value = (uintptr_t)val;
        ok += bpf(BPF_MAP_LOOKUP_ELEM, &at) == 0;
    }
    return ok;
}

static void bpfarray(unsigned entries, uint64_t ops)
{
    struct array_job job = { map_create(BPF_MAP_TYPE_ARRAY, 4, 64, entries), entries };
    uint64_t ok;

    begin("bpfarray");
    ok = on_all_cpus(array_work, &job, ops);
    end("bpfarray");
    printf("##INFO bpfarray entries=%u ops=%llu ok=%llu\n", entries,
           (unsigned long long)ops, (unsigned long long)ok);
}

/* ---- swap to zram -----------------------------------------------------------*/
static void mkswap(const char *dev, uint64_t bytes)
{
    static char page[4096];
    uint32_t v[3] = { 1, bytes / 4096 - 1, 0 };
    int fd = open(dev, O_WRONLY);

    memcpy(page + 1024, v, sizeof v);
    memcpy(page + 4086, "SWAPSPACE2", 10);
    if (fd < 0 || pwrite(fd, page, 4096, 0) != 4096 || fsync(fd))
        die("mkswap");
    close(fd);
}

static void zramswap(unsigned mib, uint64_t ops)
{
    uint64_t bytes = (uint64_t)mib << 20, np = bytes / 4096, sum = 0;
    FILE *f = fopen("/sys/block/zram0/disksize", "w");
    char *m;

    if (!f || fprintf(f, "%uM\n", 4 * mib) < 0 || fclose(f))
        die("zram disksize");
    mkswap("/dev/zram0", (uint64_t)4 * mib << 20);
    if (swapon("/dev/zram0", 0))
        die("swapon");
    f = fopen("/proc/sys/vm/page-cluster", "w");    /* no swap read-ahead */
    if (f) {
        fputs("0\n", f);
        fclose(f);
    }
    m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED)
        die("mmap");
    madvise(m, bytes, MADV_NOHUGEPAGE);
    for (uint64_t p = 0; p < np; p++) {             /* compresses about 4 : 1 */
        uint64_t *w = (uint64_t *)(m + p * 4096);

        for (int i = 0; i < 512; i++)
            w[i] = i < 128 ? rnd() : p;
    }
    if (madvise(m, bytes, MADV_PAGEOUT))
        die("MADV_PAGEOUT");
    begin("zramswap");
    for (uint64_t i = 0; i < ops; i++) {
        uint64_t p = rnd() % np;
        uint64_t *w = (uint64_t *)(m + p * 4096);

        sum += w[8];                                /* swap in */
        if (i & 1)
            w[9] = i;
        if ((i & 63) == 63)                         /* push 64 pages out again */
            madvise(m + (rnd() % (np - 64)) * 4096, 64 * 4096, MADV_PAGEOUT);
    }
    end("zramswap");
    printf("##INFO zramswap mib=%u ops=%llu sum=%llu\n", mib,
           (unsigned long long)ops, (unsigned long long)sum);
}

int main(int argc, char **argv)
{
    const char *cmd = argc > 1 ? argv[1] : "";
    unsigned a = argc > 2 ? strtoul(argv[2], NULL, 0) : 0;
    uint64_t b = argc > 3 ? strtoull(argv[3], NULL, 0) : 0;

    if (!strcmp(cmd, "begin") && argc > 2)
        begin(argv[2]);
    else if (!strcmp(cmd, "end") && argc > 2)
        end(argv[2]);
    else if (!strcmp(cmd, "fdtable"))
        fdtable(a, b);
    else if (!strcmp(cmd, "udpflows"))
        udpflows(a, b);
    else if (!strcmp(cmd, "bpfhash"))
        bpfhash(a, b);
    else if (!strcmp(cmd, "bpfarray"))
        bpfarray(a, b);
    else if (!strcmp(cmd, "zramswap"))
        zramswap(a, b);
    else {
        fprintf(stderr, "wl: unknown command '%s'\n", cmd);
        return 2;
    }
    fflush(stdout);
    return 0;
}
