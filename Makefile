# SPDX-License-Identifier: GPL-2.0
#
# Everything is built under build/:
#	module	build/module/KERNEL/vasi.ko for both test kernels; a module for
#		another kernel: make -C /lib/modules/RELEASE/build M=$PWD modules
#	daemon	build/mspd, and build/libmspd.a: all of it but main()
#	tools	build/mspctl with its other names, build/vasi-*
#	guests	build/guests/*, programs that are moved by the tests
#	tests	build/selftests/FOLDER/*
#	check	set-up, build, gates, all tests
#	demo	set-up, build, a redis-server moves between two machines
#	bench	set-up, build, the mover side by side with others, see vasi-bench(1)
# Files need no mention here: daemon/, tools/ and selftests/ are searched.

B := build
KERNELS := 6.1 6.12
VERSION := 0.1

prefix ?= /usr/local
sbindir ?= $(prefix)/sbin
bindir ?= $(prefix)/bin
mandir ?= $(prefix)/share/man
sysconfdir ?= /etc

CC ?= gcc
CFLAGS ?= -O2 -g
override CFLAGS += -std=gnu11 -Wall -Wextra -Werror -pthread
override CPPFLAGS += -Iuapi -Idaemon -I$(B)/gen -Iselftests \
	-D_GNU_SOURCE= -DVASI_VERSION='"$(VERSION)"'

packages := libprotobuf-c jansson inih libnl-3.0 libnl-genl-3.0 libnl-route-3.0 \
	liburing libxxhash libcap liblz4 libzstd openssl
package_cflags = $(shell pkg-config --cflags $(packages))
package_libs = $(shell pkg-config --libs $(packages))

all: module daemon tools guests tests
.PHONY: all
.SECONDARY:

# Half-written files must not be seen by another make in the same tree.
define replace
@mkdir -p $(@D)
@echo "  $(1)	$@"
@t=$@.tmp.$$$$ && $(2) && mv -f $$t $@ || { rm -f $$t; exit 1; }
endef

compile = $(call replace,CC,$(CC) $(CPPFLAGS) $(package_cflags) $(CFLAGS) $(1) \
	-MMD -MP -MF $@.d -MT $@ -c -o $$t $<)
link = $(call replace,LD,$(CC) $(CFLAGS) -o $$t $(1) $(LDFLAGS) -Wl$(comma)--as-needed \
	$(package_libs))
comma := ,

# -- the module

module: $(KERNELS:%=module-%)
module-%:
	@mkdir -p $(B)/module
	scripts/module $* $(B)/module/$* W=1
	@if grep -q VASI_TEST kernel/Kbuild; then \
		scripts/module $* $(B)/module/$*-test VASI_TEST=1 && \
		ln -f $(B)/module/$*-test/vasi.ko $(B)/module/$*/vasi-test.ko; fi
.PHONY: module

# -- the daemon

protos := $(shell find daemon -name '*.proto' 2>/dev/null)
gen_c := $(protos:daemon/%.proto=$(B)/gen/%.pb-c.c)
gen_h := $(gen_c:.c=.h)
daemon_src := $(shell find daemon -name '*.c' -o -name '*.S' 2>/dev/null)
daemon_obj := $(addsuffix .o,$(basename $(daemon_src:%=$(B)/obj/%)))
lib_obj := $(filter-out $(B)/obj/daemon/main.o,$(daemon_obj)) $(gen_c:$(B)/gen/%.c=$(B)/obj/gen/%.o)

daemon: $(B)/libmspd.a $(if $(wildcard daemon/main.c),$(B)/mspd)
.PHONY: daemon

$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h &: daemon/%.proto
	@mkdir -p $(@D)
	@echo "  PROTOC	$<"
	@t=$$(mktemp -d $(B)/gen/tmp.XXXXXX) && \
		protoc-c --proto_path=daemon --c_out=$$t $(<:daemon/%=%) && \
		mv -f $$t/$*.pb-c.h $(B)/gen/$*.pb-c.h && \
		mv -f $$t/$*.pb-c.c $(B)/gen/$*.pb-c.c; \
		r=$$?; rm -rf $$t; exit $$r

$(B)/obj/gen/%.o: $(B)/gen/%.c | $(gen_h)
	$(call compile,-w)

$(B)/obj/daemon/%.o: daemon/%.c | $(gen_h)
	$(call compile)

$(B)/obj/daemon/%.o: daemon/%.S | $(gen_h)
	$(call compile)

$(B)/libmspd.a: $(lib_obj)
	$(call replace,AR,$(AR) rcs $$t $(lib_obj))

$(B)/mspd: $(B)/obj/daemon/main.o $(B)/libmspd.a
	$(call link,$^)

# -- the tools: vasi-*.c is a program each (without the daemon), the rest is mspctl

tool_programs := $(patsubst tools/%.c,$(B)/%,$(wildcard tools/vasi-*.c))
mspctl_obj := $(patsubst %.c,$(B)/obj/%.o,$(filter-out tools/vasi-%.c,$(wildcard tools/*.c)))
mspctl_names := migrlpar lslparmigr vasistat

tools: $(tool_programs) $(if $(mspctl_obj),$(B)/mspctl $(mspctl_names:%=$(B)/%))
.PHONY: tools

$(B)/obj/tools/%.o: tools/%.c | $(gen_h)
	$(call compile)

$(B)/mspctl: $(mspctl_obj) $(B)/libmspd.a
	$(call link,$^)

$(mspctl_names:%=$(B)/%): $(B)/mspctl
	ln -sfn mspctl $@

$(tool_programs): $(B)/%: $(B)/obj/tools/%.o
	$(call link,$^ -lm)

# -- guests and tests: in a test folder, a file with a main() is a program and
#    the other files are linked into each of them

guests:
	@if [ -e selftests/guests/Makefile ]; then \
		$(MAKE) --no-print-directory -C selftests/guests O=$(CURDIR)/$(B); fi
.PHONY: guests

vm_test_dirs := uapi tracking suspend kstate
test_dirs := $(filter-out guests migrate vm,$(patsubst selftests/%/,%,$(wildcard selftests/*/)))
test_src := $(wildcard $(test_dirs:%=selftests/%/*.c))
has_main := ^(int )?main\(|^[A-Z_]*HARNESS_MAIN
test_main := $(if $(test_src),$(shell grep -lE '$(has_main)' $(test_src)))
test_programs := $(patsubst %.c,$(B)/%,$(test_main))

tests: $(test_programs)
.PHONY: tests

$(B)/obj/selftests/%.o: selftests/%.c | $(gen_h)
	$(call compile)

# The shared objects of a test's folder.
shared = $(patsubst %.c,$(B)/obj/%.o,$(filter-out $(test_main),$(wildcard selftests/$(1)/*.c)))
# Tests of the module do not need the daemon, and must not wait for it.
library = $(if $(filter $(1),$(vm_test_dirs)),,$(B)/libmspd.a)

.SECONDEXPANSION:
$(test_programs): $(B)/%: $(B)/obj/%.o $$(call shared,$$(notdir $$(@D))) \
		$$(call library,$$(notdir $$(@D)))
	$(call link,$^)

# -- running

check:
	scripts/check
demo:
	scripts/setup
	$(MAKE) -j$$(nproc) all
	scripts/demo
bench:
	scripts/setup
	$(MAKE) daemon tools
	tools/vasi-bench mover $(BENCH)
.PHONY: check demo bench

# -- documentation: manual pages

man_pages := $(patsubst Documentation/man/%.rst,$(B)/man/%,$(wildcard Documentation/man/*.rst))

docs: $(man_pages)
.PHONY: docs

$(B)/man/%: Documentation/man/%.rst
	$(call replace,MAN,rst2man --strict $< $$t)

# -- installation: vasi-bench works in the tree only

install: daemon tools docs
	install -d $(DESTDIR)$(sbindir) $(DESTDIR)$(bindir)
	install -m 755 $(B)/mspd $(DESTDIR)$(sbindir)
	install -m 755 $(B)/mspctl $(tool_programs) $(DESTDIR)$(bindir)
	for name in $(mspctl_names); do ln -sfn mspctl $(DESTDIR)$(bindir)/$$name; done
	for page in $(filter-out $(B)/man/vasi-bench.1,$(man_pages)); do \
		install -D -m 644 -t $(DESTDIR)$(mandir)/man$${page##*.} $$page; done
	for file in $(wildcard daemon/*.conf); do \
		install -D -m 644 -t $(DESTDIR)$(sysconfdir)/mspd $$file; done
	for file in $(wildcard daemon/*.service); do \
		install -D -m 644 -t $(DESTDIR)/lib/systemd/system $$file; done
	for file in $(wildcard tools/completion/*); do \
		install -D -m 644 -t $(DESTDIR)$(prefix)/share/bash-completion/completions $$file; done
	install -d $(DESTDIR)/usr/src/vasi-$(VERSION)
	cp -r Kbuild dkms.conf kernel uapi $(DESTDIR)/usr/src/vasi-$(VERSION)
.PHONY: install

# What scripts/setup has unpacked stays: it would fetch it again.
clean:
	rm -rf $(filter-out $(B)/kernels $(B)/qemu,$(wildcard $(B)/*))
.PHONY: clean

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
