// SPDX-License-Identifier: GPL-2.0
/*
 * mspd: moves guests between this host and others
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "config.h"
#include "control/server.h"
#include "lib/cleanup.h"
#include "log.h"

#define EXIT_MISUSE	2

/**
 * struct options - the command line, which goes before the file
 * @config: file
 * @config_given: it must exist
 * @foreground: stay with the terminal
 * @listen: HOST[:PORT] or NULL
 * @socket: or NULL
 * @state_dir: or NULL
 * @log_level: or NULL
 */
struct options {
	const char *config;
	bool config_given;
	bool foreground;
	const char *listen;
	const char *socket;
	const char *state_dir;
	const char *log_level;
};

static const char usage[] =
"Usage: mspd [OPTION]...\n"
"Moves guests between this host and others through /dev/vasi.\n"
"\n"
"  -c, --config FILE       settings, default " CONFIG_PATH "\n"
"  -f, --foreground        do not go to the background\n"
"  -l, --listen HOST[:PORT] where other hosts connect, [HOST]:PORT for IPv6\n"
"  -s, --socket PATH       control socket, default " CONFIG_SOCKET "\n"
"  -d, --state-dir DIR     guests and journals, default " CONFIG_STATE_DIR "\n"
"  -L, --log-level LEVEL   error, warning, notice, info or debug\n"
"  -h, --help              this text\n"
"  -V, --version           version\n";

/* -1: go on, else the exit code */
static int parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "foreground", no_argument, NULL, 'f' },
		{ "listen", required_argument, NULL, 'l' },
		{ "socket", required_argument, NULL, 's' },
		{ "state-dir", required_argument, NULL, 'd' },
		{ "log-level", required_argument, NULL, 'L' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "c:fl:s:d:L:hV", longs,
				NULL)) != -1) {
		switch (c) {
		case 'c':
			o->config = optarg;
			o->config_given = true;
			break;
		case 'f':
			o->foreground = true;
			break;
		case 'l':
			o->listen = optarg;
			break;
		case 's':
			o->socket = optarg;
			break;
		case 'd':
			o->state_dir = optarg;
			break;
		case 'L':
			o->log_level = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		case 'V':
			puts("mspd " VASI_VERSION);
			return EXIT_SUCCESS;
		default:
			return EXIT_MISUSE;	/* getopt said why */
		}
	}
	if (optind < argc) {
		fprintf(stderr, "mspd: what is \"%s\"? There are only options\n",
			argv[optind]);
		return EXIT_MISUSE;
	}
	return -1;
}

/* an absolute path from @text: the daemon changes its directory */
static int set_path(char *to, size_t len, const char *text, const char *what)
{
	_cleanup_free_ char *cwd = NULL;
	int n;

	if (text[0] == '/') {
		n = snprintf(to, len, "%s", text);
	} else {
		cwd = getcwd(NULL, 0);
		n = snprintf(to, len, "%s/%s", cwd ?: "", text);
	}
	if (n < 0 || (size_t)n >= len) {
		fprintf(stderr, "mspd: %s is longer than %zu characters\n",
			what, len - 1);
		return -ENAMETOOLONG;
	}
	return 0;
}

/* the file, then the command line; errors are told */
static int settings(const struct options *o, struct config *c)
{
	char err[1024];
	int r;

	config_init(c);
	r = config_read(c, o->config, err, sizeof(err));
	if (r < 0 && (r != -ENOENT || o->config_given)) {
		fprintf(stderr, "mspd: %s\n", err);
		return r;
	}
	if (o->listen && config_split_host(o->listen, c->listen,
					   sizeof(c->listen), &c->port) < 0) {
		fprintf(stderr, "mspd: --listen: \"%s\" is no HOST[:PORT]\n",
			o->listen);
		return -EINVAL;
	}
	if (o->socket && set_path(c->socket, sizeof(c->socket), o->socket,
				  "--socket") < 0)
		return -EINVAL;
	if (o->state_dir && set_path(c->state_dir, sizeof(c->state_dir),
				     o->state_dir, "--state-dir") < 0)
		return -EINVAL;
	if (o->log_level) {
		r = log_level_parse(o->log_level);
		if (r < 0) {
			fprintf(stderr, "mspd: --log-level is error, warning, notice, info or debug\n");
			return r;
		}
		c->log_level = r;
	}
	r = config_check(c, err, sizeof(err));
	if (r < 0)
		fprintf(stderr, "mspd: %s\n", err);
	return r;
}

/*
 * Descriptors 0 to 2 must be something: a socket that became number 2 would
 * get the log.
 */
static void open_standard(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/*
 * Goes to the background. The caller's terminal gets its prompt when the
 * daemon listens, and the exit code tells whether it does: @ret_ready is to be
 * written to then. Returns in the child only.
 */
static int background(int *ret_ready)
{
	int ready[2], null;
	pid_t pid;
	char ok;

	if (pipe2(ready, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid > 0) {
		close(ready[1]);
		_exit(read(ready[0], &ok, 1) == 1 ? EXIT_SUCCESS : EXIT_FAILURE);
	}
	close(ready[0]);
	setsid();
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		close(null);
	}
	/* stderr stays: there is no other place for messages */
	*ret_ready = ready[1];
	return chdir("/") < 0 ? -errno : 0;
}

int main(int argc, char **argv)
{
	struct options o = { .config = CONFIG_PATH };
	struct config config;
	struct server server;
	int r, ready = -1;

	r = parse(argc, argv, &o);
	if (r >= 0)
		return r;
	if (settings(&o, &config) < 0)
		return EXIT_MISUSE;
	open_standard();
	umask(022);
	log_open("mspd", config.log_level);
	if (geteuid())
		log_warning("not root: most guests will be out of reach");

	if (!o.foreground) {
		r = background(&ready);
		if (r < 0) {
			log_error("going to the background: %s", strerror(-r));
			return EXIT_FAILURE;
		}
	}
	r = server_open(&server, &config);
	if (r >= 0 && ready >= 0) {
		if (write(ready, "", 1) < 0)
			log_debug("nobody waits for this daemon");
		close(ready);
	}
	if (r >= 0)
		r = server_run(&server);
	server_close(&server);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
