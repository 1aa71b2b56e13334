/* punch_plan: the pure functions of core.punch: predict, between, wanted, tactic, plan.
 *
 * Provides  add_punch_plan, to open_punch, whose table it is
 * Uses      core/predict, core/punch_plan */
#ifndef BINDINGS_PUNCH_PLAN_H
#define BINDINGS_PUNCH_PLAN_H

#include <lua.h>

/* Adds them to the table on top of the stack. */
void add_punch_plan(lua_State *L);

#endif
