/* Time descriptor look-ups in a huge descriptor table.
 *
 *     fd_lookup TABLE_BYTES COUNT...
 *
 * The table is an array of 8-byte pointers in kernel memory. For each COUNT, that many descriptors, one in each
 * 4 KiB of the table, are looked up in a random cyclic order by fcntl(F_GETFD); printed is
 * "COUNT NANOSECONDS", the lowest tenth of many bursts. All descriptors are one open file, so that nothing
 * but the table (and its bitmap of flags, 1/64 of it) is touched.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { BURSTS = 400, CALLS = 2000, IN_A_PAGE = 4096 / 8 };

static uint64_t random_state = 88172645463325252u;

static uint64_t random_number(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static int64_t nanoseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static double time_lookups(const int *descriptor, long count)
{
	static int64_t taken[BURSTS];
	long at = 0;

	for (int burst = -20; burst < BURSTS; burst++) {
		int64_t began = nanoseconds();
		for (int call = 0; call < CALLS; call++) {
			if (fcntl(descriptor[at], F_GETFD) < 0) {
				perror("fcntl");
				exit(1);
			}
			at = at + 1 == count ? 0 : at + 1;
		}
		if (burst >= 0)
			taken[burst] = nanoseconds() - began;
	}
	qsort(taken, BURSTS, sizeof taken[0], ascending);
	return (double)taken[BURSTS / 10] / CALLS;
}

int main(int argc, char **argv)
{
	long bytes = argc > 2 ? atol(argv[1]) : 0;
	long pages = bytes / 4096;
	struct rlimit limit = { (rlim_t)bytes / 8, (rlim_t)bytes / 8 };

	if (pages < 1) {
		fprintf(stderr, "usage: fd_lookup TABLE_BYTES COUNT...\n");
		return 2;
	}
	if (setrlimit(RLIMIT_NOFILE, &limit)) {
		struct rlimit now;
		getrlimit(RLIMIT_NOFILE, &now);
		limit.rlim_cur = limit.rlim_max = now.rlim_max;
		if (now.rlim_max < (rlim_t)bytes / 8 || setrlimit(RLIMIT_NOFILE, &limit)) {
			fprintf(stderr, "a table of %ld bytes needs %ld descriptors, %llu are allowed: "
				"run as root, or raise ulimit -Hn\n",
				bytes, bytes / 8, (unsigned long long)now.rlim_max);
			return 3;
		}
	}
	int file = open("/dev/null", O_RDONLY);
	int *descriptor = malloc(pages * sizeof *descriptor);
	if (file < 0 || !descriptor) {
		perror("open");
		return 1;
	}
	for (int place = 2; place < argc; place++) {
		long count = atol(argv[place]);
		if (count < 1 || count > pages) {
			fprintf(stderr, "%s: from 1 to %ld\n", argv[place], pages);
			return 2;
		}
		for (long page = 0; page < count; page++) {
			long slot = page * IN_A_PAGE + (long)(random_number() % (IN_A_PAGE - 8)) + (page ? 0 : 8);
			if (dup2(file, (int)slot) < 0) {
				fprintf(stderr, "descriptor %ld: %s\n", slot, strerror(errno));
				return 3;
			}
			long other = (long)(random_number() % (uint64_t)(page + 1));
			descriptor[page] = descriptor[other];
			descriptor[other] = (int)slot;
		}
		printf("%ld %.2f\n", count, time_lookups(descriptor, count));
		fflush(stdout);
		for (long page = 0; page < count; page++)
			close(descriptor[page]);
	}
	return 0;
}
