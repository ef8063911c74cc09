// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "session/world.h"
#include "tap.h"

struct world *world;
int world_object_fd = -1;

static pthread_t writer;
static int death[2] = { -1, -1 };	/* a pipe: POLLHUP like a dead guest */
static int abortion[2] = { -1, -1 };	/* POLLERR like an aborted stream */

/* -- the guest's life */

static unsigned int random_page(unsigned int *seed)
{
	return rand_r(seed) % WORLD_PAGES;
}

static void page_write(unsigned int n, uint64_t value)
{
	unsigned char *p = world->source + n * WORLD_PAGE;

	if (!world->page[n].mapped)
		return;
	memcpy(p + value % 500 * 8, &value, sizeof(value));
	world->page[n].populated = true;
	world->page[n].reported = false;
	world->writes++;
}

static void page_drop(unsigned int n)
{
	memset(world->source + n * WORLD_PAGE, 0, WORLD_PAGE);
	world->page[n].populated = false;
	world->page[n].reported = false;
}

/* what it is from the beginning */
static void page_fill(unsigned int n)
{
	uint64_t value = n * 0x9e3779b97f4a7c15ULL;

	/* every third has content, every third is zero, one a hole */
	if (n % 3 == 0)
		memset(world->source + n * WORLD_PAGE, value, WORLD_PAGE);
	world->page[n].populated = n % 3 < 2;
}

/* the same bytes again, or what was dropped comes back */
static void rewrite(unsigned int n, uint64_t i)
{
	if (i % 64 == 0) {
		page_drop(n);
		return;
	}
	page_fill(n);
	world->page[n].reported = false;
}

static void churn(void)
{
	bool map = !world->page[WORLD_LOOSE].mapped;

	for (unsigned int n = WORLD_LOOSE; n < WORLD_LOOSE_END; n++) {
		page_drop(n);
		world->page[n].mapped = map;
	}
}

static void *writer_main(void *arg)
{
	unsigned int seed = 42;
	uint64_t i = 1;

	(void)arg;
	while (!world->stop) {
		/* in this order, or a suspend sees the end of the last one */
		world->stopped = false;
		if (world->suspended || world->dead) {
			world->stopped = true;
			usleep(200);
			continue;
		}
		i++;
		if (!world->plan.busy) {
			usleep(1000);
			continue;
		}
		if (world->plan.rewrite) {
			rewrite(random_page(&seed), i);
			continue;
		}
		page_write(WORLD_HOT, i);
		page_write(random_page(&seed), i);
		if (i % 16 == 0)
			page_drop(random_page(&seed));
		if (i % 8 == 0)	/* leaves no trace */
			memcpy(world->object + rand_r(&seed) %
			       (OBJECT_PAGES / 2) * WORLD_PAGE, &i, sizeof(i));
		if (world->plan.churn && i % 64 == 0)
			churn();
		usleep(50);
	}
	world->stopped = true;
	return NULL;
}

void world_new(void)
{
	world_free();
	world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(world != MAP_FAILED);
	world->abi = VASI_ABI_VERSION;
	world_object_fd = memfd_create("world", MFD_CLOEXEC);
	must(world_object_fd >= 0 &&
	     !ftruncate(world_object_fd, sizeof(world->object)));
	must(!pipe(death) && !pipe(abortion));
	for (unsigned int n = 0; n < WORLD_PAGES; n++) {
		world->page[n].mapped = true;
		page_fill(n);
	}
	memset(world->object, 0xa5, sizeof(world->object) / 2);
}

void world_free(void)
{
	if (!world)
		return;
	munmap(world, sizeof(*world));
	world = NULL;
	close(world_object_fd);
	for (int i = 0; i < 2; i++) {
		close(abortion[i]);
		close(death[i]);
	}
}

void world_start(void)
{
	must(!pthread_create(&writer, NULL, writer_main, NULL));
}

void world_stop(void)
{
	world->stop = true;
	pthread_join(writer, NULL);
}

int world_differences(void)
{
	unsigned char object[sizeof(world->object)];
	int n = 0;

	for (unsigned int i = 0; i < WORLD_PAGES; i++) {
		if (world->page[i].mapped != world->target_mapped[i]) {
			n++;
			continue;
		}
		n += world->page[i].mapped &&
		     memcmp(world->source + i * WORLD_PAGE,
			    world->target + i * WORLD_PAGE, WORLD_PAGE);
	}
	must(pread(world_object_fd, object, sizeof(object), 0) ==
	     sizeof(object));
	for (unsigned int i = 0; i < OBJECT_PAGES; i++)
		n += !!memcmp(object + i * WORLD_PAGE,
			      world->object + i * WORLD_PAGE, WORLD_PAGE);
	return n;
}

/* -- guest access */

static int fake_probe(struct vasi_query *ret)
{
	if (world->plan.no_module)
		return -ENOENT;
	if (ret)
		*ret = (struct vasi_query){ .out_abi = world->abi };
	return 0;
}

static int fake_attach(struct guest **ret, pid_t pid, uint32_t service,
		       uint64_t stream_id)
{
	struct guest *g = calloc(1, sizeof(*g));

	if (!g)
		return -ENOMEM;
	*g = (struct guest){ &world_access, stream_id, service, pid };
	world->opens++;
	*ret = g;
	return 0;
}

static int fake_join(struct guest **ret, const struct guest *g)
{
	return fake_attach(ret, g->pid, g->service, g->stream_id);
}

static void fake_close(struct guest *g)
{
	world->opens--;
	free(g);
}

static int guest_gone(void)
{
	if (world->dead)
		return -ESRCH;
	return world->execed ? -ECANCELED : 0;
}

static int fake_track(struct guest *g, int on)
{
	(void)g;
	world->tracking = on;
	for (unsigned int n = 0; n < WORLD_PAGES; n++)
		world->page[n].reported = false;
	return 0;
}

static void plan_events(int round)
{
	if (world->plan.die_in_round == round) {
		world->dead = true;
		close(death[1]);
		death[1] = -1;
	}
	if (world->plan.exec_in_round == round) {
		world->execed = true;
		/* the write end of a pipe without readers polls POLLERR */
		close(abortion[0]);
		abortion[0] = -1;
	}
}

/* once: a page that comes twice in a round may come in two versions */
static int harvest_object(uint64_t start, struct vasi_range *vec,
			  size_t *ret_n, uint64_t *ret_end)
{
	*ret_n = 0;
	*ret_end = OBJECT_PAGES * WORLD_PAGE;
	if (start)
		return 0;
	/* the second half is not populated */
	vec[0] = (struct vasi_range){
		.pages = OBJECT_PAGES / 2, .space = OBJECT_SPACE,
		.kind = VASI_KIND_DATA,
	};
	vec[1] = (struct vasi_range){
		.start = OBJECT_PAGES / 2 * WORLD_PAGE,
		.pages = OBJECT_PAGES / 2, .space = OBJECT_SPACE,
		.kind = VASI_KIND_HOLE,
	};
	*ret_n = 2;
	return 0;
}

static int fake_harvest(struct guest *g, uint32_t space, uint64_t start,
			uint64_t end, uint64_t max_pages,
			struct vasi_range *vec, size_t len, size_t *ret_n,
			uint64_t *ret_end)
{
	size_t n = 0;
	unsigned int i = 0;

	(void)g;
	(void)max_pages;
	must(!end && len >= 2);
	if (guest_gone())
		return guest_gone();
	if (space)
		return harvest_object(start, vec, ret_n, ret_end);
	if (start > WORLD_BASE)
		i = (start - WORLD_BASE) / WORLD_PAGE;
	else
		plan_events(++world->harvests);
	if (guest_gone())
		return guest_gone();
	for (; i < WORLD_PAGES && n < len; i++) {
		struct world_page *p = &world->page[i];
		uint64_t addr = WORLD_BASE + i * WORLD_PAGE;
		uint8_t kind;

		if (!p->mapped || atomic_exchange(&p->reported, true))
			continue;
		kind = !p->populated ? VASI_KIND_HOLE : VASI_KIND_DATA;
		if (n && vec[n - 1].kind == kind &&
		    vec[n - 1].start + vec[n - 1].pages * WORLD_PAGE == addr) {
			vec[n - 1].pages++;
			continue;
		}
		vec[n++] = (struct vasi_range){
			.start = addr, .pages = 1, .kind = kind, .shift = 12,
		};
	}
	*ret_n = n;
	*ret_end = i == WORLD_PAGES ? 1ULL << 47 : WORLD_BASE + i * WORLD_PAGE;
	return 0;
}

static int fake_mark(struct guest *g, const struct vasi_range *vec, size_t n)
{
	(void)g;
	for (size_t i = 0; i < n; i++)
		for (uint64_t j = 0; j < vec[i].pages; j++) {
			uint64_t at = (vec[i].start - WORLD_BASE) /
				      WORLD_PAGE + j;

			must(vec[i].space == 0 && at < WORLD_PAGES);
			world->page[at].reported = false;
			world->marked++;
		}
	return 0;
}

static int fake_objects(struct guest *g, struct vasi_object *vec, size_t len,
			size_t *ret_n)
{
	(void)g;
	must(len);
	vec[0] = (struct vasi_object){
		.space = OBJECT_SPACE, .flags = VASI_OBJECT_MEMFD,
		.bytes = sizeof(world->object), .nr_vmas = 1,
	};
	*ret_n = 1;
	return 0;
}

static int fake_read(struct guest *g, const struct vasi_range *vec, size_t n,
		     void *data, size_t len, size_t *ret_done)
{
	const bool target = g->service == VASI_SERVICE_TARGET;
	unsigned char *out = data;
	size_t i;

	must(!target || (world->prepared && !world->parked));
	if (!target && guest_gone())
		return guest_gone();
	for (i = 0; i < n; i++) {
		size_t bytes = vec[i].pages * WORLD_PAGE;
		uint64_t at = vec[i].start;
		bool there = true;

		must(bytes <= len && vec[i].kind == VASI_KIND_DATA);
		if (vec[i].space) {
			must(!target);
			memcpy(out, world->object + at, bytes);
		} else {
			at -= WORLD_BASE;
			for (size_t j = 0; j < vec[i].pages; j++)
				there &= target ?
					 world->target_mapped[at / WORLD_PAGE +
							      j] :
					 world->page[at / WORLD_PAGE + j].mapped;
			if (!there)
				break;
			memcpy(out, (target ? world->target : world->source) +
				    at, bytes);
		}
		out += bytes;
		len -= bytes;
	}
	*ret_done = i;
	return i || !n ? 0 : -EFAULT;
}

static int fake_write(struct guest *g, const struct vasi_range *vec, size_t n,
		      const void *data, size_t len, size_t *ret_done)
{
	const unsigned char *in = data;

	must(g->service == VASI_SERVICE_TARGET);
	must(world->prepared && !world->parked);
	for (size_t i = 0; i < n; i++) {
		size_t bytes = vec[i].pages * WORLD_PAGE;
		uint64_t at = vec[i].start - WORLD_BASE;

		must(!vec[i].space);
		for (size_t j = 0; j < vec[i].pages; j++)
			if (at + bytes > WORLD_BYTES ||
			    !world->target_mapped[at / WORLD_PAGE + j]) {
				world->frames_outside++;
				return -EFAULT;
			}
		if (vec[i].kind == VASI_KIND_ZERO) {
			memset(world->target + at, 0, bytes);
			continue;
		}
		must(bytes <= len);
		memcpy(world->target + at, in, bytes);
		in += bytes;
		len -= bytes;
	}
	*ret_done = n;
	return 0;
}

static int fake_suspend(struct guest *g, unsigned int deadline_ms, int parked,
			struct guest_holdup *ret_holdup)
{
	(void)g;
	(void)deadline_ms;
	(void)parked;
	if (guest_gone())
		return guest_gone();
	if (world->suspends++ < world->plan.holdups) {
		*ret_holdup = (struct guest_holdup){
			4711, VASI_HOLDUP_UNINTERRUPTIBLE, "stuck" };
		return -ETIMEDOUT;
	}
	world->suspended = true;
	while (!world->stopped)
		usleep(100);
	return 0;
}

static int fake_resume(struct guest *g)
{
	if (g->service == VASI_SERVICE_TARGET) {
		if (world->plan.fail_resume)
			return -ESRCH;
		must(world->parked);
		/* never two */
		must(world->sealed && world->suspended && !world->dead);
		world->running = true;
		return 0;
	}
	must(!world->running);
	world->resumes++;
	world->sealed = false;
	world->suspended = false;
	return 0;
}

static int fake_seal(struct guest *g)
{
	must(g->service == VASI_SERVICE_SOURCE && world->suspended);
	world->sealed = true;
	return 0;
}

static int fake_destroy(struct guest *g, unsigned int deadline_ms)
{
	(void)deadline_ms;
	must(g->service == VASI_SERVICE_SOURCE && world->running);
	if (world->plan.fail_destroy)
		return -ETIMEDOUT;
	world->destroyed = true;
	return 0;
}

static int fake_signal(struct guest *g, uint32_t code, uint32_t reason)
{
	(void)g;
	(void)code;
	(void)reason;
	return 0;
}

static int fake_progress(struct guest *g, uint64_t bytes_left)
{
	(void)g;
	(void)bytes_left;
	return 0;
}

static int fake_pollfd(const struct guest *g)
{
	(void)g;
	return world->plan.exec_in_round ? abortion[1] : death[0];
}

const struct guest_access world_access = {
	.name = "fake",
	.probe = fake_probe,
	.attach = fake_attach,
	.join = fake_join,
	.close = fake_close,
	.track = fake_track,
	.harvest = fake_harvest,
	.mark = fake_mark,
	.objects = fake_objects,
	.read = fake_read,
	.write = fake_write,
	.suspend = fake_suspend,
	.resume = fake_resume,
	.seal = fake_seal,
	.destroy = fake_destroy,
	.signal = fake_signal,
	.progress = fake_progress,
	.pollfd = fake_pollfd,
};
