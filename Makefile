# SPDX-License-Identifier: LGPL-2.1-or-later
# What a person or a script does with this repository; `make help` lists it. The work is done by cargo and by the scripts
# that are named here. Needed Debian packages are installed by scripts/deps, which says so.

PREFIX      ?= /usr/local
bindir      ?= $(PREFIX)/bin
libdir      ?= $(PREFIX)/lib
includedir  ?= $(PREFIX)/include
datadir     ?= $(PREFIX)/share
mandir      ?= $(datadir)/man
bashdir     ?= $(datadir)/bash-completion/completions
zshdir      ?= $(datadir)/zsh/site-functions
fishdir     ?= $(datadir)/fish/vendor_completions.d
DESTDIR     ?=
CARGO       ?= cargo

# The shared library's file name carries its ABI's version: the number in the SONAME, then additions, then fixes.
SONAME      = libxlevent.so.1
LIBFILE     = $(SONAME).0.0
VERSION     = $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)

TARGET      = $(or $(CARGO_TARGET_DIR),target)
# CARGO_BUILD_TARGET: for another system; cargo has a directory for each.
RELEASE     = $(TARGET)/$(if $(CARGO_BUILD_TARGET),$(CARGO_BUILD_TARGET)/)release
STAGE       = $(abspath $(TARGET))/stage
HEADERS     = $(wildcard include/*.h)
# The library, the command, and what the command preloads beside the library.
PACKAGES    = -p xlevent -p xlevent-cli -p xlevent-run
# Manual pages and completions, as they are made.
PAGES       = $(TARGET)/pages
# Where the command looks for the library, besides beside itself and in its own tree.
export XLEVENT_LIBDIR = $(libdir)

.DEFAULT_GOAL = all

all: deps ## Build target/release/libxlevent.so and .a, and the command xlevent (default)
	@$(MAKE) --no-print-directory build

# With what there is: nothing is installed for it.
build:
	$(CARGO) build --release $(PACKAGES)
	@$(MAKE) --no-print-directory -s $(PAGES)/done

# cargo makes it; and `make -n` goes on where it hasn't.
$(RELEASE)/xlevent-pages: ;

# Made anew when what they are made of has changed: the program holds the command line's definition.
$(PAGES)/done: $(RELEASE)/xlevent-pages $(HEADERS) man/xlevent.7
	rm -rf $(PAGES)
	$(RELEASE)/xlevent-pages . $(PAGES)
	touch $@

deps: ## Install what building needs, if it is missing
	@scripts/deps build

deps-vm:
	@scripts/deps vm

deps-test:
	@scripts/deps test

##@ Tests

test: deps-test ## Run the tests, as CI does; ends with the totals (13 minutes; XEN=4.20: on that release of Xen; BRIEF=1: what fails, and the totals)
	@scripts/test

check: deps-test ## Run the short ones: format, clippy, Rust, header, C in its three columns (3 minutes after a build)
	@scripts/test check

test-all: deps-test ## Run all, before a release: long trials, each release of Xen, packages, fresh Debians (a night)
	@scripts/test all

check-fmt: deps-test ## Check the formatting
	@scripts/test fmt

clippy: deps-test ## Check with clippy: no warnings
	@scripts/test clippy

test-rust: deps-test ## Run the Rust tests (one: cargo test NAME)
	@scripts/test rust

test-header: deps-test ## Check that the committed header is what the source says
	$(CARGO) test --test header --test layout

test-c: deps-test ## Run the C tests (one: make test-c PROGRAM=event NAME=predicate)
	@$(if $(PROGRAM),ctests/run $(PROGRAM) $(NAME),scripts/test c)

test-valgrind: deps-test ## Run the C tests under valgrind (one: make test-valgrind PROGRAM=event NAME=predicate)
	@ctests/run --valgrind $(PROGRAM) $(NAME)

trials: deps-test ## Run what might break it, over and over (one: make trials TRIAL=restarts; the long forms: LENGTH=--long)
	@trials/run $(LENGTH) $(TRIAL)

test-vm: deps-test ## Run scenarios on real Xen in QEMU (one: make test-vm SCENARIO=ends XEN=4.20)
	@SCENARIOS="$(or $(SCENARIO),$(SCENARIOS))" scripts/test vm

test-fresh: ## Run `make demo` and `make test` on a fresh Debian (20 minutes): DISTRIBUTION=bookworm or trixie (COMMAND="make demo": that alone)
	@scripts/test-fresh $(DISTRIBUTION) $(if $(COMMAND),"$(COMMAND)")

check-rust-version: ## Run `make check` with the oldest Rust that is promised, in a clean Debian 13
	@scripts/test-fresh trixie "make check" scripts/oldest-rust

##@ Real Xen

demo: deps-vm ## Show it: xl and a watcher on real Xen in QEMU (3 minutes the first time, then 1)
	@xenvm/vm run demo

vm-shell: deps-vm ## Get a prompt in dom0 on real Xen in QEMU, with the library in place
	@xenvm/vm shell

##@ Figures

bench: deps-bench stage ## Measure it beside libxenlight on the simulated host (about 15 minutes; BENCH=--quick for less)
	$(CARGO) build --release -p xensim -p xensim-preload
	XLEVENT_STAGE=$(STAGE) XENSIM_BIN=$(abspath $(RELEASE))/xensim benches/run $(BENCH)

bench-xen: deps-vm ## Measure it beside libxenlight on real Xen, with a thousand domains (about 8 minutes; XEN=4.20: on that release)
	@benches/xen

deps-bench: deps-test
	@scripts/deps bench

##@ A page to look at

report: ## Write what the last `make test` and the benchmarks say as one page: target/report/index.html
	@scripts/deps report
	@report/make

report-check: report ## Look at that page in a real browser, and take pictures of it
	@scripts/deps browser
	@report/check

##@ Installation

install: ## Install what has been built (PREFIX, bindir, libdir, includedir, mandir, DESTDIR)
	@test -f $(RELEASE)/libxlevent.so -a -f $(PAGES)/done || { echo "nothing built yet: run make first" >&2; exit 1; }
	install -d "$(DESTDIR)$(libdir)/pkgconfig" "$(DESTDIR)$(libdir)/xlevent" "$(DESTDIR)$(includedir)/xlevent" "$(DESTDIR)$(bindir)"
	install -m 755 $(RELEASE)/libxlevent.so "$(DESTDIR)$(libdir)/$(LIBFILE)"
	ln -sf $(LIBFILE) "$(DESTDIR)$(libdir)/$(SONAME)"
	ln -sf $(SONAME) "$(DESTDIR)$(libdir)/libxlevent.so"
	install -m 644 $(RELEASE)/libxlevent.a "$(DESTDIR)$(libdir)/libxlevent.a"
	install -m 644 $(HEADERS) "$(DESTDIR)$(includedir)/xlevent/"
	sed -e 's|@prefix@|$(PREFIX)|' -e 's|@libdir@|$(libdir)|' -e 's|@includedir@|$(includedir)|' \
	    -e 's|@version@|$(VERSION)|' xlevent.pc.in >"$(DESTDIR)$(libdir)/pkgconfig/xlevent.pc"
	chmod 644 "$(DESTDIR)$(libdir)/pkgconfig/xlevent.pc"
	install -m 755 $(RELEASE)/xlevent "$(DESTDIR)$(bindir)/xlevent"
	install -m 644 $(RELEASE)/libxlevent_run.so "$(DESTDIR)$(libdir)/xlevent/libxlevent_run.so"
	for page in $$(cd $(PAGES)/man && echo man*/*); do install -D -m 644 $(PAGES)/man/$$page "$(DESTDIR)$(mandir)/$$page" || exit 1; done
	install -D -m 644 $(PAGES)/bash/xlevent.bash "$(DESTDIR)$(bashdir)/xlevent"
	install -D -m 644 $(PAGES)/zsh/_xlevent "$(DESTDIR)$(zshdir)/_xlevent"
	install -D -m 644 $(PAGES)/fish/xlevent.fish "$(DESTDIR)$(fishdir)/xlevent.fish"

uninstall: ## Remove what install has installed
	rm -f "$(DESTDIR)$(libdir)/$(LIBFILE)" "$(DESTDIR)$(libdir)/$(SONAME)" "$(DESTDIR)$(libdir)/libxlevent.so" \
	    "$(DESTDIR)$(libdir)/libxlevent.a" "$(DESTDIR)$(libdir)/pkgconfig/xlevent.pc"
	rm -f $(patsubst include/%,"$(DESTDIR)$(includedir)/xlevent/%",$(HEADERS))
	rm -f "$(DESTDIR)$(bindir)/xlevent" "$(DESTDIR)$(libdir)/xlevent/libxlevent_run.so"
	for page in $$(cd $(PAGES)/man && echo man*/*); do rm -f "$(DESTDIR)$(mandir)/$$page"; done
	rm -f "$(DESTDIR)$(bashdir)/xlevent" "$(DESTDIR)$(zshdir)/_xlevent" "$(DESTDIR)$(fishdir)/xlevent.fish"
	-rmdir "$(DESTDIR)$(includedir)/xlevent" "$(DESTDIR)$(libdir)/xlevent"

##@ Packages

deb: deps-package ## Build Debian packages, without a network, and check them: target/deb/*.deb
	@scripts/deb

rpm: deps-package ## Build RPM packages, without a network, and check them: target/rpm/RPMS
	@scripts/rpm

test-packages: deps-package ## Build the Debian packages in a clean Debian, install them into another and test them there
	@packaging/test

deps-package:
	@scripts/deps package

# The simulated host, for tests and figures.
xensim: deps
	$(CARGO) build --release -p xensim -p xensim-preload

# An installation inside the target directory, for what is built against it here.
stage: all
	@$(MAKE) --no-print-directory -s install DESTDIR= PREFIX="$(STAGE)" libdir="$(STAGE)/lib" includedir="$(STAGE)/include" \
	    bindir="$(STAGE)/bin" datadir="$(STAGE)/share" mandir="$(STAGE)/share/man" bashdir="$(STAGE)/share/bash" \
	    zshdir="$(STAGE)/share/zsh" fishdir="$(STAGE)/share/fish"

##@ Upkeep

headers: deps ## Generate include/*.h anew from the source
	UPDATE_HEADERS=1 $(CARGO) test --quiet --test header

readme: ## Make the tables in README.md and docs/ anew from what the tests say
	scripts/readme

clean: ## Remove what was built (the virtual machine's cache: xenvm/vm clean)
	$(CARGO) clean

help: ## List all this
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z-]+:.*## / { sub(/:.*/, "", $$1); printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: all build deb rpm test-packages deps-package deps deps-vm deps-test test check test-all check-fmt clippy test-rust test-header test-c test-valgrind trials test-vm test-fresh demo vm-shell bench bench-xen deps-bench report report-check install uninstall \
    xensim stage headers readme clean help
