// SPDX-License-Identifier: GPL-2.0
/*
 * A workload with a known size, working set and dirty rate, which knows at any
 * time whether its memory is right.
 *
 * A page's word 0 counts the writes to it, its last word follows from the page
 * and that count, the words between from the page and the seed. The writers
 * count on their own stacks; the pages' counts must sum up to that. Each thread
 * writes its own slice of the working set, so every thread verifies alone.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define WORDS (PAGE / sizeof(uint64_t))
#define HUGE (2UL << 20)
#define MAX_THREADS 256
#define SEC 1000000000ULL
#define MSEC 1000000ULL
#define MAX_MIB (1ULL << 24)
#define MAX_NUMBER 1000000000ULL

enum pattern { SEQ, RANDOM, HOT };
enum fill { FILL_RANDOM, FILL_MIXED, FILL_ZERO };

static const char *const pattern_names[] = { "seq", "random", "hot" };
static const char *const fill_names[] = { "random", "mixed", "zero" };

static struct {
	uint64_t size_mib, wss_mib, rate, seconds, threads, seed;
	enum pattern pattern;
	enum fill fill;
	bool thp;
	const char *output;
} opt = { .size_mib = 64, .rate = 10000, .threads = 1, .seed = 1 };

struct writer {
	pthread_t thread;
	unsigned int index;
	uint64_t first, pages;
	/* for the rate: as of the last batch */
	_Atomic uint64_t writes;
	/* the last verification: its number, and what it found */
	_Atomic unsigned int verified;
	uint64_t counted, sum, bad_pages;
};

static uint64_t *memory;
static uint64_t total_pages, wss_pages;
static struct writer writers[MAX_THREADS];
static _Atomic unsigned int verify_wanted;
static _Atomic uint64_t max_gap_ns, max_gap_at_ns;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * SEC + (uint64_t)ts.tv_nsec;
}

static uint64_t mix64(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/*
 * What a program's memory is like to a compressor: of ten words three are zero, four
 * are of a few that come again and again, and three are new in a part.
 */
static uint64_t mixed_word(uint64_t random)
{
	uint64_t kind = random % 10;

	if (kind < 3)
		return 0;
	if (kind < 7)
		return mix64((random >> 8) % 1024);
	return random >> 32;
}

static uint64_t fill_word(uint64_t page, uint64_t word)
{
	uint64_t random;

	if (opt.fill == FILL_ZERO)
		return 0;
	random = mix64(opt.seed ^ mix64(page * WORDS + word));
	return opt.fill == FILL_MIXED ? mixed_word(random) : random;
}

static uint64_t last_word(uint64_t page, uint64_t count)
{
	return count ? mix64(count ^ mix64(page + opt.seed)) :
		       fill_word(page, WORDS - 1);
}

static void fill_page(uint64_t page)
{
	uint64_t *p = memory + page * WORDS, i;

	/* with --fill zero the page is read, so that it is there, and is zero */
	if (opt.fill == FILL_ZERO) {
		(void)*(volatile uint64_t *)p;
		return;
	}
	for (i = 1; i < WORDS; i++)
		p[i] = fill_word(page, i);
}

static void write_page(uint64_t page)
{
	volatile uint64_t *p = memory + page * WORDS;
	uint64_t count = p[0] + 1;

	p[0] = count;
	p[WORDS - 1] = last_word(page, count);
}

static bool page_is_right(uint64_t page)
{
	const uint64_t *p = memory + page * WORDS;
	uint64_t i;

	if (p[WORDS - 1] != last_word(page, p[0]))
		return false;
	for (i = 1; i < WORDS - 1; i++)
		if (p[i] != fill_word(page, i))
			return false;
	return true;
}

static void verify_slice(struct writer *w, uint64_t counted)
{
	uint64_t page;

	w->counted = counted;
	w->sum = 0;
	w->bad_pages = 0;
	for (page = w->first; page < w->first + w->pages; page++) {
		w->sum += memory[page * WORDS];
		w->bad_pages += !page_is_right(page);
	}
}

/* nine of ten writes go to the first tenth */
static uint64_t choose(struct writer *w, uint64_t n, uint64_t *prng)
{
	uint64_t r = mix64((*prng)++), hot = w->pages / 10 ? w->pages / 10 : 1;

	switch (opt.pattern) {
	case SEQ:
		return n % w->pages;
	case HOT:
		return mix64(r) % (r % 10 ? hot : w->pages);
	default:
		return r % w->pages;
	}
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	uint64_t prng = mix64(opt.seed + w->index), started = now_ns();
	uint64_t rate = opt.rate / opt.threads, due, n = 0, skipped = 0;
	struct timespec ms = { .tv_nsec = (long)MSEC };

	if (w->index < opt.rate % opt.threads)
		rate++;
	for (;;) {
		unsigned int wanted = atomic_load(&verify_wanted);

		if (atomic_load(&w->verified) != wanted) {
			verify_slice(w, n);
			atomic_store(&w->verified, wanted);
		}
		if (opt.rate) {
			due = (uint64_t)((__uint128_t)(now_ns() - started) *
					 rate / SEC) - skipped;
			if (due <= n) {
				nanosleep(&ms, NULL);
				continue;
			}
			/* what a stop left undone is not made up for */
			if (due - n > rate / 10 + 1) {
				skipped += due - n - rate / 10 - 1;
				due = n + rate / 10 + 1;
			}
		} else {
			due = n + 256;
		}
		while (n < due) {
			write_page(w->first + choose(w, n, &prng));
			n++;
		}
		atomic_store(&w->writes, n);
	}
	return NULL;
}

static void *ticker_main(void *arg)
{
	struct timespec ms = { .tv_nsec = (long)MSEC };
	uint64_t last = now_ns(), now;

	for (;;) {
		nanosleep(&ms, NULL);
		now = now_ns();
		if (now - last > atomic_load(&max_gap_ns)) {
			atomic_store(&max_gap_ns, now - last);
			atomic_store(&max_gap_at_ns, last);
		}
		last = now;
	}
	return arg;
}

static uint64_t all_writes(void)
{
	uint64_t n = 0, i;

	for (i = 0; i < opt.threads; i++)
		n += atomic_load(&writers[i].writes);
	return n;
}

static int emit(const char *text)
{
	FILE *f;
	int r;

	if (!opt.output) {
		fputs(text, stdout);
		return fflush(stdout) ? -errno : 0;
	}
	f = fopen(opt.output, "ae");
	if (!f)
		return -errno;
	r = fputs(text, f) < 0 ? -EIO : 0;
	if (fclose(f) && !r)
		r = -errno;
	return r;
}

/* what the rate is measured from: the last line, or the start */
static struct {
	uint64_t started_ns, since_ns, since_writes;
} clock_base;

/* Each writer stops for its own slice only; nobody waits for all of them. */
static int report(const char *why, bool *ret_ok)
{
	unsigned int wanted = atomic_fetch_add(&verify_wanted, 1) + 1, i;
	uint64_t at = now_ns(), writes = all_writes(), page;
	uint64_t counted = 0, sum = 0, bad = 0, bad_cold = 0, bad_sums = 0;
	struct timespec ms = { .tv_nsec = (long)MSEC };
	char text[1024];
	double lasted;

	for (i = 0; i < opt.threads; i++) {
		const struct writer *w = &writers[i];

		while (atomic_load(&w->verified) != wanted)
			nanosleep(&ms, NULL);
		counted += w->counted;
		sum += w->sum;
		bad += w->bad_pages;
		bad_sums += w->sum != w->counted;
	}
	for (page = wss_pages; page < total_pages; page++)
		bad_cold += memory[page * WORDS] != 0 || !page_is_right(page);

	*ret_ok = !bad && !bad_cold && !bad_sums;
	lasted = (double)(at - clock_base.since_ns) / SEC;
	snprintf(text, sizeof(text),
		 "{\"event\": \"%s\", \"ok\": %s, \"pid\": %d, \"seconds\": %.3f, "
		 "\"writes\": %llu, \"sum\": %llu, \"bad_sums\": %llu, "
		 "\"bad_pages\": %llu, \"bad_cold_pages\": %llu, "
		 "\"rate\": %.1f, \"wanted_rate\": %llu, \"size_mib\": %llu, "
		 "\"wss_mib\": %llu, \"pattern\": \"%s\", \"threads\": %llu, "
		 "\"thp\": %s, \"max_gap_us\": %llu, \"max_gap_at_ns\": %llu}\n",
		 why, *ret_ok ? "true" : "false", getpid(),
		 (double)(at - clock_base.started_ns) / SEC,
		 (unsigned long long)counted, (unsigned long long)sum,
		 (unsigned long long)bad_sums, (unsigned long long)bad,
		 (unsigned long long)bad_cold,
		 lasted > 0 ? (double)(writes - clock_base.since_writes) / lasted : 0.0,
		 (unsigned long long)opt.rate, (unsigned long long)opt.size_mib,
		 (unsigned long long)opt.wss_mib, pattern_names[opt.pattern],
		 (unsigned long long)opt.threads, opt.thp ? "true" : "false",
		 (unsigned long long)(atomic_exchange(&max_gap_ns, 0) / 1000),
		 (unsigned long long)atomic_load(&max_gap_at_ns));
	/* the time of the check itself counts neither as work nor as rate */
	clock_base.since_ns = now_ns();
	clock_base.since_writes = all_writes();
	return emit(text);
}

static int memory_setup(void)
{
	size_t bytes = opt.size_mib << 20;
	unsigned char *p;
	uintptr_t at;
	uint64_t page;

	p = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	at = ((uintptr_t)p + HUGE - 1) & ~(HUGE - 1);
	if (madvise((void *)at, bytes,
		    opt.thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) < 0 && opt.thp)
		return -errno;
	memory = (uint64_t *)at;
	total_pages = bytes / PAGE;
	wss_pages = (opt.wss_mib << 20) / PAGE;
	for (page = 0; page < total_pages; page++)
		fill_page(page);
	return 0;
}

static int threads_setup(void)
{
	uint64_t i, share = wss_pages / opt.threads;
	pthread_t ticker;
	int r;

	for (i = 0; i < opt.threads; i++) {
		struct writer *w = &writers[i];

		w->index = (unsigned int)i;
		w->first = i * share;
		w->pages = i + 1 < opt.threads ? share : wss_pages - w->first;
		r = pthread_create(&w->thread, NULL, writer_main, w);
		if (r)
			return -r;
	}
	return -pthread_create(&ticker, NULL, ticker_main, NULL);
}

static void wanted_signals(sigset_t *ret_set)
{
	sigemptyset(ret_set);
	sigaddset(ret_set, SIGUSR1);
	sigaddset(ret_set, SIGTERM);
	sigaddset(ret_set, SIGINT);
}

/* the memory is filled: whoever waits to track or to move may begin */
static int emit_start(void)
{
	char text[128];

	snprintf(text, sizeof(text),
		 "{\"event\": \"start\", \"ok\": true, \"pid\": %d, \"monotonic_ns\": %llu}\n",
		 getpid(), (unsigned long long)clock_base.started_ns);
	return emit(text);
}

static int run(void)
{
	uint64_t end, now;
	struct timespec ts;
	sigset_t set;
	bool ok, wrong = false;
	int sig, r;

	wanted_signals(&set);
	clock_base.started_ns = clock_base.since_ns = now_ns();
	r = threads_setup();
	if (!r)
		r = emit_start();
	if (r < 0)
		return r;

	end = opt.seconds ? clock_base.started_ns + opt.seconds * SEC : 0;
	do {
		now = now_ns();
		ts = (struct timespec){ .tv_sec = 3600 };
		if (end && now < end)
			ts = (struct timespec){
				.tv_sec = (time_t)((end - now) / SEC),
				.tv_nsec = (long)((end - now) % SEC),
			};
		sig = end && now >= end ? SIGTERM : sigtimedwait(&set, NULL, &ts);
		if (sig < 0)
			continue;
		r = report(sig == SIGUSR1 ? "report" : "end", &ok);
		if (r < 0)
			return r;
		wrong = wrong || !ok;
	} while (sig < 0 || sig == SIGUSR1);
	return wrong;
}

static void usage(FILE *f)
{
	fprintf(f,
		"usage: vasi-load [options]\n"
		"  --size MiB       memory that is filled (default 64)\n"
		"  --wss MiB        the part of it that is written (default: all)\n"
		"  --rate PAGES     pages written per second, 0: no limit (default 10000)\n"
		"  --pattern P      seq, random, or hot: 9 of 10 writes to a tenth (default seq)\n"
		"  --threads N      writers, each with its slice (default 1)\n"
		"  --seconds N      end after N seconds, 0: at SIGTERM (default 0)\n"
		"  --thp            ask for huge pages (else they are declined)\n"
		"  --fill KIND      content before the first write: random (default), zero, or\n"
		"                   mixed, which compresses as the memory of programs does\n"
		"  --seed N         another content and another order (default 1)\n"
		"  --output FILE    append the JSON lines there (default: stdout)\n"
		"A line says when the memory is filled and the writers run.\n"
		"SIGUSR1 verifies all pages and prints a line; the end does the same.\n"
		"Exit code: 0 all right, 1 memory was wrong or a call failed, 2 misuse.\n");
}

static int choice(const char *s, const char *const *names, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (strcmp(s, names[i]) == 0)
			return (int)i;
	return -EINVAL;
}

static int number(const char *s, uint64_t min, uint64_t max, uint64_t *ret_n)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(s, &end, 10);
	if (errno || end == s || *end || *s == '-' || n < min || n > max)
		return -EINVAL;
	*ret_n = n;
	return 0;
}

static int parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "size", required_argument, NULL, 's' },
		{ "wss", required_argument, NULL, 'w' },
		{ "rate", required_argument, NULL, 'r' },
		{ "pattern", required_argument, NULL, 'p' },
		{ "threads", required_argument, NULL, 't' },
		{ "seconds", required_argument, NULL, 'e' },
		{ "thp", no_argument, NULL, 'T' },
		{ "fill", required_argument, NULL, 'f' },
		{ "seed", required_argument, NULL, 'S' },
		{ "output", required_argument, NULL, 'o' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c, r;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		r = 0;
		switch (c) {
		case 's':
			r = number(optarg, 1, MAX_MIB, &opt.size_mib);
			break;
		case 'w':
			r = number(optarg, 1, MAX_MIB, &opt.wss_mib);
			break;
		case 'r':
			r = number(optarg, 0, MAX_NUMBER, &opt.rate);
			break;
		case 'p':
			r = choice(optarg, pattern_names, 3);
			if (r >= 0)
				opt.pattern = (enum pattern)r;
			break;
		case 't':
			r = number(optarg, 1, MAX_THREADS, &opt.threads);
			break;
		case 'e':
			r = number(optarg, 0, MAX_NUMBER, &opt.seconds);
			break;
		case 'T':
			opt.thp = true;
			break;
		case 'f':
			r = choice(optarg, fill_names, 3);
			if (r >= 0)
				opt.fill = (enum fill)r;
			break;
		case 'S':
			r = number(optarg, 0, UINT64_MAX, &opt.seed);
			break;
		case 'o':
			opt.output = optarg;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			usage(stderr);
			return -EINVAL;
		}
		if (r < 0) {
			fprintf(stderr, "vasi-load: not a valid value: %s\n",
				optarg);
			return r;
		}
	}
	if (!opt.wss_mib)
		opt.wss_mib = opt.size_mib;
	if (optind != argc || opt.wss_mib > opt.size_mib) {
		fprintf(stderr, optind != argc ?
			"vasi-load: unexpected argument\n" :
			"vasi-load: the working set is larger than the memory\n");
		return -EINVAL;
	}
	return 0;
}

int main(int argc, char **argv)
{
	sigset_t set;
	int r;

	if (parse(argc, argv) < 0)
		return 2;
	/* before the memory is filled: a signal in that time waits */
	wanted_signals(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	r = memory_setup();
	if (r >= 0)
		r = run();
	if (r < 0) {
		fprintf(stderr, "vasi-load: %s\n", strerror(-r));
		return 1;
	}
	/* the writers and the ticker end with the process */
	_exit(r);
}
