# p2pd-lua. `make help` lists what can be made; V=1 shows the commands, BUILD=dir builds elsewhere.
VERSION  = 0.1.0
BUILD   ?= build
PREFIX  ?= /usr/local
LUA     ?= lua5.4
CFLAGS  ?= -O2 -g
WARN     = -Wall -Wextra -Wshadow -Wconversion $(WERROR)
Q       := $(if $(V),,@)

# Packages go by other names elsewhere than in Debian: the first that pkg-config knows.
known   = $(firstword $(shell for p in $(1); do pkg-config --exists $$p 2>/dev/null && echo $$p; done) $(1))
LUA_PC := $(call known,lua5.4 lua-5.4 lua54 lua)
PC     := libuv openssl $(call known,lua5.4-luv libluv luv)
LIBS   := $(shell pkg-config --libs $(PC) 2>/dev/null) -lpaho-mqtt3as -lm -lpthread
FLAGS  := $(strip $(CC) -I. -I$(BUILD) -D_GNU_SOURCE -DP2PD_VERSION=\"$(VERSION)\" $(CPPFLAGS) -std=gnu11 -fPIC -fno-plt \
	-fvisibility=hidden $(CFLAGS) $(WARN) $(SANITIZE) $(shell pkg-config --cflags $(PC) $(LUA_PC) 2>/dev/null))
# The REPL alone needs readline: as a part of the program it costs the others neither time nor memory.
archives = $(filter /%,$(foreach l,$(1),$(shell $(CC) -print-file-name=lib$(l).a)))
READLINE = $(if $(word 2,$(call archives,readline tinfo)),$(call archives,readline tinfo),-lreadline)
# So does port mapping, whose process is the program. And with Lua a part of it, a call of Lua's is one that does not
# wander through a table: what a small message costs is such calls. Modules of C find all of Lua in the program.
PORTMAP  = $(foreach l,miniupnpc natpmp,$(firstword $(call archives,$(l)) -l$(l)))
LUA_LIBS := $(shell pkg-config --libs $(LUA_PC) 2>/dev/null)
WITH_LUA = $(foreach l,$(LUA_LIBS),$(if $(findstring lua,$l),$(foreach a,$(firstword $(call archives,$(l:-l%=%)) $l),\
	-Wl,--whole-archive $a -Wl,--no-whole-archive),$l))
LINK    = $(CC) $(CFLAGS) $(SANITIZE) $(LDFLAGS) -o $@

# The program alone edits lines, reads arguments, catches signals and blocks; all else is the library's too.
PROGRAM  = bindings/main.c bindings/hint.c bindings/interrupt.c bindings/line.c bindings/portmap.c bindings/terminal.c
CORE     = $(sort $(wildcard core/*.c))
BINDINGS = $(filter-out $(PROGRAM) bindings/compile.c,$(sort $(wildcard bindings/*.c)))
C_TESTS  = $(sort $(wildcard spec/c/test_*.c))
FUZZERS  = $(sort $(wildcard spec/fuzz/fuzz_*.c))
BENCHES  = $(sort $(wildcard spec/bench/*.c))
SUPPORT  = $(sort $(wildcard spec/support/*.c))
C_FILES  = $(CORE) $(PROGRAM) bindings/compile.c $(BINDINGS) $(C_TESTS) $(wildcard spec/fuzz/*.c) $(BENCHES) $(SUPPORT)
# What nodes load lies together: of the rest no page comes into memory.
LOADED   = $(sort $(wildcard lua/p2pd/*.lua lua/p2pd/context/*.lua lua/p2pd/pipeline/*.lua lua/p2pd/strategies/*.lua))
EMBEDDED = $(LOADED) $(filter-out $(LOADED),$(sort $(shell find lua scripts -name '*.lua' -o -name '*.md')))
LAYOUT   = $(sort $(foreach d,core bindings spec/c spec/fuzz spec/bench spec/support,$(wildcard $(d)/*.c $(d)/*.h)))
object   = $(1:%.c=$(BUILD)/%.o)
run      = $(Q)$(LUA) $(1) --build $(BUILD)

all: $(BUILD)/p2pd-lua $(BUILD)/p2pd.so ## build the program and the library (the default)

demo: ## install what is missing, build, and let two nodes meet behind routers
	@sh spec/support/packages.sh build demo lab
	$(Q)$(MAKE) --no-print-directory all
	$(Q)$(BUILD)/p2pd-lua demo

check: ## install what is missing, build, and run all tests, sanitizers and lint
	@sh spec/support/packages.sh build demo lab test
	$(call run,spec/check.lua)

bench: ## measure against Node.js, socat and plain C (ONLY=pipe,echo,… JSON=file RUNS=3)
	@sh spec/support/packages.sh build demo bench
	$(Q)$(MAKE) --no-print-directory all benches
	$(call run,spec/bench/run.lua) $(if $(ONLY),--only $(ONLY)) $(if $(JSON),--json $(JSON)) $(if $(RUNS),--runs $(RUNS))

lint: compile_commands.json $(BUILD)/embedded.inc ## luacheck, clang-format, clang-tidy, and the rules of this house
	$(call run,spec/lint.lua)

format: ## lay the C files out by .clang-format
	$(Q)clang-format -i $(LAYOUT)

asan: ## run the tests with the address and undefined behaviour sanitizers, in BUILD/asan
	$(call run,spec/check.lua) --only asan

tsan: ## run the C tests with the thread sanitizer, in BUILD/tsan
	$(call run,spec/check.lua) --only tsan

fuzz: ## fuzz each parser for TIME (60) seconds, in BUILD/fuzz
	@sh spec/support/packages.sh build fuzz
	$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/fuzz CC=clang CFLAGS="-O1 -g" \
	  SANITIZE=-fsanitize=address,undefined,fuzzer-no-link fuzzers
	$(Q)set -e; for f in $(FUZZERS:spec/fuzz/fuzz_%.c=%); do echo "FUZZ $$f"; mkdir -p $(BUILD)/fuzz/corpus/$$f; \
	  $(BUILD)/fuzz/fuzz_$$f -max_total_time=$(or $(TIME),60) -verbosity=0 -print_final_stats=1 \
	  -artifact_prefix=$(BUILD)/fuzz/ $(BUILD)/fuzz/corpus/$$f spec/fuzz/corpus/$$f; done

matrix: ## try every pair of NATs in labs, thrice, and judge that (an hour; made again, it goes on where it was)
	@sh spec/support/packages.sh build demo lab
	$(Q)$(MAKE) --no-print-directory all
	$(Q)place=$(BUILD)/matrix/$$(cksum < $(BUILD)/p2pd-lua | cut -d ' ' -f 1); mkdir -p $$place; \
	luck=$$($(BUILD)/p2pd-lua spec/support/referee.lua --luck); \
	for each in "drop --uninvited drop" "reset --uninvited reset" "noisy --uninvited drop --loss 0.02 --noise 5"; do \
	  set -- $$each; name=$$1; shift; set -- "$$@" --resume --json $$place/$$name.json --html $$place/$$name.html; \
	  echo "MATRIX $$place/$$name"; $(BUILD)/p2pd-lua lab matrix "$$@"; \
	  status=$$?; [ $$status -le 1 ] || exit $$status; \
	  echo "MATRIX $$place/$$name, those that take luck"; $(BUILD)/p2pd-lua lab matrix "$$@" --pairs $$luck --repeat 10; \
	  status=$$?; [ $$status -le 1 ] || exit $$status; \
	done; $(BUILD)/p2pd-lua spec/support/referee.lua $$place/drop.json $$place/reset.json $$place/noisy.json

docs: ## make guide and reference as HTML, and the manual pages, in BUILD/docs
	@sh spec/support/packages.sh build docs
	$(Q)$(MAKE) --no-print-directory all
	$(call run,spec/docs/make.lua)

# Manual pages where there is what makes them: who only installs need not have it.
install: all ## put the program, the library, manual pages, README, guide and types below PREFIX (/usr/local)
	$(Q)install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin lib/lua/5.4 $(addprefix share/doc/p2pd-lua/lua/,doc meta))
	$(Q)install -m 755 $(BUILD)/p2pd-lua $(DESTDIR)$(PREFIX)/bin/
	$(Q)install -m 644 $(BUILD)/p2pd.so $(DESTDIR)$(PREFIX)/lib/lua/5.4/
	$(Q)install -m 644 $(wildcard README.md LICENSE) $(DESTDIR)$(PREFIX)/share/doc/p2pd-lua/
	$(Q)for d in doc meta; do install -m 644 lua/$$d/* $(DESTDIR)$(PREFIX)/share/doc/p2pd-lua/lua/$$d/; done
	$(Q)if sh spec/support/packages.sh --list docs > /dev/null; then $(LUA) spec/docs/make.lua --build $(BUILD) > /dev/null && \
	  install -d $(addprefix $(DESTDIR)$(PREFIX)/share/man/,man1 man3) && \
	  install -m 644 $(BUILD)/docs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/ && \
	  install -m 644 $(BUILD)/docs/man/*.3lua $(DESTDIR)$(PREFIX)/share/man/man3/; \
	else echo "The manual pages are left out: lowdown, which makes them, is not there."; fi
	@echo "p2pd-lua $(VERSION) is in $(DESTDIR)$(PREFIX)"

compile_commands.json: Makefile $(C_FILES) ## tell editors and clang-tidy how each file is compiled
	$(Q)sep='['; for f in $(C_FILES); do printf '%s\n' "$$sep"; sep=,; printf '%s"%s"%s"%s"%s"%s -c %s"}' \
	  '{"directory": ' '$(CURDIR)' ', "file": ' $$f ', "command": ' \
	  '$(subst ",\",$(subst \,\\,$(FLAGS)))' $$f; done > $@; printf '\n]\n' >> $@

clean: ## remove what was built
	$(Q)rm -rf $(BUILD) compile_commands.json

packages: ## install all that any of these needs
	@sh spec/support/packages.sh build demo lab test bench fuzz docs

help: ## list the targets
	@sed -n 's/^\([a-z_.]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 24

$(BUILD)/p2pd-lua: $(call object,$(PROGRAM) $(BINDINGS)) $(BUILD)/core.a
	@echo "LD $@"
	$(Q)$(LINK) -Wl,-E $^ -Wl,-z,now $(READLINE) $(PORTMAP) $(WITH_LUA) $(LIBS)

# It stays loaded: paho's threads, and what OpenSSL has cached, outlive the Lua state.
$(BUILD)/p2pd.so: $(call object,$(BINDINGS)) $(BUILD)/core.a
	@echo "LD $@"
	$(Q)$(LINK) -shared -Wl,-z,nodelete $^ $(LIBS)

$(BUILD)/core.a: $(call object,$(CORE))
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/%.o: %.c $(BUILD)/flags
	@echo "CC $<"
	@mkdir -p $(@D)
	$(Q)$(FLAGS) -MMD -MP -c -o $@ $<

# Written anew when compiler or flags change, so that everything is compiled again.
ifneq ($(FLAGS),$(shell cat $(BUILD)/flags 2>/dev/null))
.PHONY: $(BUILD)/flags
endif
$(BUILD)/flags:
	@sh spec/support/packages.sh --list build
	@mkdir -p $(@D) && printf '%s\n' '$(FLAGS)' > $@

# The Lua files, carried inside of the program, as text and compiled: a list for the assembler to include.
COMPILED = $(patsubst %.lua,$(BUILD)/%.luac,$(filter-out lua/meta/%,$(filter %.lua,$(EMBEDDED))))
$(BUILD)/bindings/source.o: $(BUILD)/embedded.inc $(EMBEDDED) $(COMPILED)
ifneq ($(EMBEDDED),$(shell sed 's/[^"]*"\([^"]*\)".*/\1/' $(BUILD)/embedded.inc 2>/dev/null))
.PHONY: $(BUILD)/embedded.inc
endif
$(BUILD)/embedded.inc: Makefile
	@mkdir -p $(@D) && : > $(BUILD)/nothing
	$(Q)n=0; for f in $(EMBEDDED); do n=$$((n+1)); c=$(BUILD)/$${f%.lua}.luac; \
	  case " $(COMPILED) " in *" $$c "*) ;; *) c=$(BUILD)/nothing ;; esac; \
	  echo "EMBED($$n, \"$$f\", \"$$c\")"; done > $@

$(BUILD)/compile: $(BUILD)/bindings/compile.o
	@echo "LD $@"
	$(Q)$(LINK) $^ $(LUA_LIBS)

$(BUILD)/%.luac: %.lua $(BUILD)/compile
	@mkdir -p $(@D)
	$(Q)$(BUILD)/compile $< $@

tests: all benches $(C_TESTS:spec/c/%.c=$(BUILD)/%) $(FUZZERS:spec/fuzz/fuzz_%.c=$(BUILD)/replay_%) \
	$(SUPPORT:spec/support/%.c=$(BUILD)/%)
benches: $(BENCHES:spec/bench/%.c=$(BUILD)/bench_%)
fuzzers: $(FUZZERS:spec/fuzz/%.c=$(BUILD)/%)

$(BUILD)/replay_%: $(BUILD)/spec/fuzz/fuzz_%.o $(BUILD)/spec/fuzz/replay.o $(BUILD)/core.a
	$(Q)$(LINK) $^ $(LIBS)
$(BUILD)/fuzz_%: $(BUILD)/spec/fuzz/fuzz_%.o $(BUILD)/core.a
	$(Q)$(LINK) -fsanitize=fuzzer $^ $(LIBS)
$(BUILD)/bench_%: $(BUILD)/spec/bench/%.o $(BUILD)/core.a
	$(Q)$(LINK) $^ $(LIBS)
$(BUILD)/test_%: $(BUILD)/spec/c/test_%.o $(BUILD)/core.a
	$(Q)$(LINK) $^ $(LIBS)
$(SUPPORT:spec/support/%.c=$(BUILD)/%): $(BUILD)/%: $(BUILD)/spec/support/%.o
	$(Q)$(LINK) $^

.PHONY: all demo check bench lint format asan tsan fuzz matrix docs install clean packages help tests benches fuzzers
.SECONDARY:
-include $(patsubst %.c,$(BUILD)/%.d,$(C_FILES))
