# p2pd-lua. `make help` lists what can be made.
BUILD   ?= build
PREFIX  ?= /usr/local
CC      ?= cc
LUA     ?= lua5.4
CFLAGS  ?= -O2 -g
WARN     = -Wall -Wextra -Wshadow -Wconversion $(WERROR)
Q       := $(if $(V),,@)

PACKAGES = lua5.4 libuv lua5.4-luv openssl
CPPFLAGS += -I. -I$(BUILD) -D_GNU_SOURCE
ALL_CFLAGS = -std=gnu11 -fPIC -fvisibility=hidden $(CFLAGS) $(WARN) $(SANITIZE) \
	$(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
LIBS     = $(shell pkg-config --libs libuv lua5.4-luv openssl 2>/dev/null) -lpaho-mqtt3as -lm -lpthread
LUA_LIBS = $(shell pkg-config --libs lua5.4 2>/dev/null)

# The program alone edits lines, reads arguments and catches signals; all else is the library's too.
PROGRAM_ONLY = bindings/main.c bindings/interrupt.c bindings/line.c
CORE     = $(sort $(wildcard core/*.c))
BINDINGS = $(filter-out $(PROGRAM_ONLY),$(sort $(wildcard bindings/*.c)))
SOURCES  = $(sort $(shell find lua scripts -name '*.lua' -o -name '*.md'))
HEADERS  = $(wildcard core/*.h bindings/*.h spec/c/*.h)
C_TESTS  = $(sort $(wildcard spec/c/test_*.c))
FUZZERS  = $(sort $(wildcard spec/fuzz/fuzz_*.c))

object   = $(patsubst %.c,$(BUILD)/%.o,$(1))
core_a   = $(BUILD)/core.a

.PHONY: all demo check bench lint format asan tsan fuzz docs install packages help clean
all: $(BUILD)/p2pd-lua $(BUILD)/p2pd.so  ## build the program and the library (the default)

demo: packages  ## install what is missing, build, and let two nodes meet
	$(Q)$(MAKE) --no-print-directory all
	$(Q)$(BUILD)/p2pd-lua demo

check: packages  ## install what is missing, build, and run all tests, sanitizers and lint
	$(Q)$(MAKE) --no-print-directory all
	$(Q)$(LUA) spec/check.lua --build $(BUILD)

$(BUILD)/p2pd-lua: $(call object,$(PROGRAM_ONLY) $(BINDINGS)) $(core_a)
	@echo "LD $@"
	$(Q)$(CC) $(SANITIZE) $(LDFLAGS) -Wl,-E -o $@ $^ $(LUA_LIBS) -lreadline $(LIBS)

$(BUILD)/p2pd.so: $(call object,$(BINDINGS)) $(core_a)
	@echo "LD $@"
	$(Q)$(CC) -shared $(SANITIZE) $(LDFLAGS) -o $@ $^ $(LIBS)

$(core_a): $(call object,$(CORE))
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/%.o: %.c
	@echo "CC $<"
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# The Lua files, carried inside of the program: a list for the assembler to include.
$(BUILD)/bindings/source.o: $(BUILD)/embedded.inc
$(BUILD)/embedded.inc: $(SOURCES) Makefile
	@mkdir -p $(@D)
	$(Q)n=0; for f in $(SOURCES); do n=$$((n+1)); echo "EMBED($$n, \"$$f\")"; done > $@

$(BUILD)/test_%: $(BUILD)/spec/c/test_%.o $(core_a)
	@echo "LD $@"
	$(Q)$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/replay_%: $(BUILD)/spec/fuzz/fuzz_%.o $(BUILD)/spec/fuzz/replay.o $(core_a)
	@echo "LD $@"
	$(Q)$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/bench_%: $(BUILD)/spec/bench/%.o $(core_a)
	@echo "LD $@"
	$(Q)$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(LIBS)

.PHONY: tests packages-present
tests: all $(C_TESTS:spec/c/%.c=$(BUILD)/%) $(FUZZERS:spec/fuzz/fuzz_%.c=$(BUILD)/replay_%)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
