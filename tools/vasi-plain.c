// SPDX-License-Identifier: GPL-2.0
/*
 * Random memory through plain TCP sockets, a thread for each stream: what a
 * link and two CPUs give to a program that does nothing but send and recv.
 *
 * Each connection carries its slice and an end of stream; the receiver answers
 * with the bytes it counted. The sender's clock runs from the moment all are
 * connected to the last answer, so nothing that is still in a buffer counts.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include "lib/cleanup.h"

#define MAX_STREAMS 64
#define SEC 1000000000ULL
#define MIB (1ULL << 20)

static struct {
	const char *listen, *to;
	uint64_t streams, size_mib, chunk_kib;
} opt = { .streams = 1, .size_mib = 256, .chunk_kib = 256 };

struct stream {
	pthread_t thread;
	int fd;
	unsigned char *data;
	uint64_t bytes;
	int error;
};

static struct stream streams[MAX_STREAMS];

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * SEC + (uint64_t)ts.tv_nsec;
}

static int send_all(int fd, const void *data, uint64_t len)
{
	const unsigned char *p = data;
	ssize_t n;

	while (len) {
		n = send(fd, p, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int send_slice(struct stream *s)
{
	uint64_t chunk = opt.chunk_kib << 10, done, n, counted;
	int r;

	for (done = 0; done < s->bytes; done += n) {
		n = s->bytes - done < chunk ? s->bytes - done : chunk;
		r = send_all(s->fd, s->data + done, n);
		if (r < 0)
			return r;
	}
	if (shutdown(s->fd, SHUT_WR) < 0)
		return -errno;
	if (recv(s->fd, &counted, sizeof(counted), MSG_WAITALL) !=
	    (ssize_t)sizeof(counted))
		return -EPIPE;
	return be64toh(counted) == s->bytes ? 0 : -EBADMSG;
}

static int receive_slice(struct stream *s)
{
	uint64_t chunk = opt.chunk_kib << 10, counted;
	_cleanup_free_ unsigned char *buffer = malloc(chunk);
	ssize_t n;

	if (!buffer)
		return -ENOMEM;
	while ((n = recv(s->fd, buffer, chunk, 0)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		s->bytes += (uint64_t)n;
	}
	counted = htobe64(s->bytes);
	return send_all(s->fd, &counted, sizeof(counted));
}

static void *sender_main(void *arg)
{
	struct stream *s = arg;

	s->error = send_slice(s);
	return NULL;
}

static void *receiver_main(void *arg)
{
	struct stream *s = arg;

	s->error = receive_slice(s);
	return NULL;
}

/* runs a thread per stream to its end; the first error of them */
static int run_all(void *(*body)(void *), uint64_t *ret_bytes, uint64_t *ret_ns)
{
	uint64_t started = now_ns(), bytes = 0, i, n;
	int error = 0;

	for (n = 0; n < opt.streams && !error; n++)
		error = -pthread_create(&streams[n].thread, NULL, body,
					&streams[n]);
	if (error)
		n--;
	for (i = 0; i < n; i++) {
		pthread_join(streams[i].thread, NULL);
		if (!error)
			error = streams[i].error;
		bytes += streams[i].bytes;
	}
	if (error)
		return error;
	*ret_bytes = bytes;
	*ret_ns = now_ns() - started;
	return 0;
}

static void print_result(const char *role, uint64_t bytes, uint64_t ns)
{
	printf("{\"role\": \"%s\", \"streams\": %llu, \"chunk_kib\": %llu, "
	       "\"bytes\": %llu, \"ns\": %llu, \"goodput_Bps\": %.0f}\n", role,
	       (unsigned long long)opt.streams,
	       (unsigned long long)opt.chunk_kib, (unsigned long long)bytes,
	       (unsigned long long)ns, ns ? (double)bytes * SEC / (double)ns : 0);
	fflush(stdout);
}

/* Nothing on the way can make it smaller. */
static int random_memory(uint64_t bytes, unsigned char **ret)
{
	uint64_t i, x = now_ns() | 1, *p;

	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	for (i = 0; i < bytes / sizeof(*p); i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = x;
	}
	*ret = (unsigned char *)p;
	return 0;
}

/* HOST:PORT as the only address of its kind; @text is split in place */
static int resolve(char *text, bool passive, struct addrinfo **ret)
{
	struct addrinfo hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0),
	};
	char *port = strrchr(text, ':');
	int r;

	if (!port || !port[1])
		return -EINVAL;
	*port++ = 0;
	r = getaddrinfo(*text ? text : NULL, port, &hints, ret);
	return r == 0 ? 0 : r == EAI_SYSTEM ? -errno : -EADDRNOTAVAIL;
}

static int send_memory(char *to)
{
	uint64_t total = opt.size_mib * MIB, share = total / opt.streams, i;
	struct addrinfo *address;
	uint64_t bytes, ns;
	unsigned char *memory = NULL;
	int r;

	r = resolve(to, false, &address);
	if (r < 0)
		return r;
	r = random_memory(total, &memory);
	if (r < 0)
		goto out;
	for (i = 0; i < opt.streams; i++) {
		struct stream *s = &streams[i];

		s->data = memory + i * share;
		s->bytes = i + 1 < opt.streams ? share : total - i * share;
		s->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		r = s->fd < 0 || connect(s->fd, address->ai_addr,
					 address->ai_addrlen) < 0 ? -errno : 0;
		if (r < 0)
			goto out;
	}
	r = run_all(sender_main, &bytes, &ns);
	if (!r)
		print_result("sender", bytes, ns);
out:
	freeaddrinfo(address);
	return r;
}

/* @ret_port: what the kernel chose when it was asked for any */
static int listen_at(char *at, int *ret_fd, unsigned int *ret_port)
{
	struct sockaddr_in6 own = { 0 };
	socklen_t len = sizeof(own);
	_cleanup_close_ int fd = -1;
	struct addrinfo *address;
	int on = 1, r;

	r = resolve(at, true, &address);
	if (r < 0)
		return r;
	fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, address->ai_addr, address->ai_addrlen) < 0 ||
	    listen(fd, MAX_STREAMS) < 0 ||
	    getsockname(fd, (struct sockaddr *)&own, &len) < 0)
		r = -errno;
	freeaddrinfo(address);
	if (r < 0)
		return r;
	/* the port is at the same place in both families */
	*ret_port = ntohs(own.sin6_port);
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int receive_memory(char *at)
{
	_cleanup_close_ int fd = -1;
	unsigned int port;
	uint64_t i, bytes, ns;
	int r;

	r = listen_at(at, &fd, &port);
	if (r < 0)
		return r;
	printf("{\"listening\": %u}\n", port);
	fflush(stdout);
	for (i = 0; i < opt.streams; i++) {
		streams[i].fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (streams[i].fd < 0)
			return -errno;
	}
	r = run_all(receiver_main, &bytes, &ns);
	if (!r)
		print_result("receiver", bytes, ns);
	return r;
}

static void usage(FILE *f)
{
	fprintf(f,
		"usage: vasi-plain [options] HOST:PORT       send random memory\n"
		"       vasi-plain [options] --listen [HOST]:PORT    receive it, once\n"
		"  --streams N      connections, a thread each, the same on both sides,\n"
		"                   1 to 64 (default 1)\n"
		"  --size MiB       memory to send (default 256)\n"
		"  --chunk KiB      bytes of one call (default 256)\n"
		"The receiver prints the port it listens at, in the end both what they saw,\n"
		"as JSON. Exit code: 0 done, 1 a call failed, 2 misuse.\n");
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
		{ "listen", required_argument, NULL, 'l' },
		{ "streams", required_argument, NULL, 's' },
		{ "size", required_argument, NULL, 'm' },
		{ "chunk", required_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c, r;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		r = 0;
		switch (c) {
		case 'l':
			opt.listen = optarg;
			break;
		case 's':
			r = number(optarg, 1, MAX_STREAMS, &opt.streams);
			break;
		case 'm':
			r = number(optarg, 1, 1 << 20, &opt.size_mib);
			break;
		case 'c':
			r = number(optarg, 1, 1 << 20, &opt.chunk_kib);
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			usage(stderr);
			return -EINVAL;
		}
		if (r < 0) {
			fprintf(stderr, "vasi-plain: not a valid value: %s\n",
				optarg);
			return r;
		}
	}
	if (!opt.listen && optind < argc)
		opt.to = argv[optind++];
	if (optind != argc || !(opt.listen || opt.to)) {
		fprintf(stderr, optind != argc ?
			"vasi-plain: unexpected argument\n" :
			"vasi-plain: where to?\n");
		return -EINVAL;
	}
	return 0;
}

int main(int argc, char **argv)
{
	_cleanup_free_ char *address = NULL;
	int r;

	if (parse(argc, argv) < 0)
		return 2;
	address = strdup(opt.listen ? opt.listen : opt.to);
	if (!address)
		return 1;
	r = opt.listen ? receive_memory(address) : send_memory(address);
	if (r < 0) {
		fprintf(stderr, "vasi-plain: %s: %s\n",
			opt.listen ? opt.listen : opt.to, strerror(-r));
		return 1;
	}
	return 0;
}
