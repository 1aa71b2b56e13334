#include "bindings/task_inner.h"
#include "core/loop.h"

enum { READY_AT_ONCE = 128 }; /* tasks that run before the loop looks at its sockets again */

static const uint64_t NS_PER_MS = 1000000, NS_PER_S = 1000000000;

/* --- lists of waits ------------------------------------------------------------------------ */

void wait_list_init(struct wait_link *list) {
    list->next = list->previous = list;
}

void wait_list_add(struct wait_link *list, struct wait *wait) {
    wait->link = (struct wait_link){list, list->previous};
    list->previous->next = &wait->link;
    list->previous = &wait->link;
}

struct wait *wait_list_first(const struct wait_link *list) {
    return list->next == list ? NULL : container_of(list->next, struct wait, link);
}

void wait_list_remove(void *wait) {
    struct wait_link *link = &((struct wait *)wait)->link;
    if (!link->next)
        return;
    link->next->previous = link->previous;
    link->previous->next = link->next;
    link->next = link->previous = NULL;
}

/* --- time ---------------------------------------------------------------------------------- */

uint64_t runtime_now_ns(struct runtime *runtime) {
    return runtime->virtual_now_ns ? runtime->virtual_now_ns : uv_hrtime();
}

void push_deadline(lua_State *L, double timeout_s) {
    if (timeout_s >= 0)
        timeout_s += (double)runtime_now_ns(runtime_of(L)) / (double)NS_PER_S;
    lua_pushnumber(L, timeout_s);
}

double time_left(lua_State *L, int index) {
    double deadline = lua_tonumber(L, index);
    if (deadline < 0)
        return -1;
    double left = deadline - (double)runtime_now_ns(runtime_of(L)) / (double)NS_PER_S;
    return left > 0 ? left : 0;
}

static void timer_fired(uv_timer_t *timer);
static void idle_fired(uv_idle_t *idle);

/* What is due already has its turn after the loop has looked at its sockets: a timer of no time,
 * started by a timer, would come before that, again and again. The timer is left alone when it
 * would only be moved to a later time: it fires early then, finds nothing due and is set again,
 * which is cheaper than moving it at each wait. */
static void arm(struct runtime *runtime) {
    struct deadline *first = timers_first(&runtime->timers);
    runtime->due = false;
    if (!first) {
        uv_timer_stop(&runtime->timer);
        return;
    }
    uint64_t ms = 0;
    if (!runtime->virtual_now_ns) {
        uint64_t now = uv_hrtime();
        ms = first->at_ns > now ? (first->at_ns - now + NS_PER_MS - 1) / NS_PER_MS : 0;
        runtime->due = ms == 0;
        if (runtime->due) {
            uv_idle_start(&runtime->idle, idle_fired);
            return;
        }
        uv_update_time(runtime->loop);
        if (uv_is_active((uv_handle_t *)&runtime->timer) &&
            uv_timer_get_due_in(&runtime->timer) <= ms)
            return;
    }
    uv_timer_start(&runtime->timer, timer_fired, ms, 0);
}

void deadline_set(struct runtime *runtime, struct deadline *deadline, double seconds) {
    double ns = seconds * (double)NS_PER_S;
    uint64_t now = runtime_now_ns(runtime);
    uint64_t wait = ns < 9e18 ? (uint64_t)ns : (uint64_t)9e18;
    if (timers_add(&runtime->timers, deadline, now + wait) == 0 &&
        timers_first(&runtime->timers) == deadline)
        arm(runtime);
}

void deadline_unset(struct runtime *runtime, struct deadline *deadline) {
    if (!deadline->place)
        return;
    timers_remove(&runtime->timers, deadline);
    if (!timers_first(&runtime->timers))
        arm(runtime);
}

/* --- turns --------------------------------------------------------------------------------- */

void task_make_ready(struct task *task) {
    struct runtime *runtime = task->runtime;
    task->state = TASK_READY;
    task->next_ready = NULL;
    *runtime->ready_end = task;
    runtime->ready_end = &task->next_ready;
    uv_idle_start(&runtime->idle, idle_fired);
}

static void end_wait(struct task *task, int status) {
    struct wait *wait = &task->wait;
    deadline_unset(task->runtime, &wait->deadline);
    wait->status = status;
    wait->detach = NULL;
}

void task_end_wait_early(struct task *task, int status) {
    wait_detach detach = task->wait.detach;
    void *arg = task->wait.arg;
    end_wait(task, status);
    if (detach)
        detach(arg);
}

/* Runs the task until it parks or ends. Its values for the coroutine lie on its stack already. */
static void resume(struct task *task) {
    struct runtime *runtime = task->runtime;
    struct task *before = runtime->current;
    int arguments = task->started ? 0 : lua_gettop(task->thread) - 1, results;
    task->started = true;
    task->state = TASK_RUNNING;
    runtime->current = task;
    int status = lua_resume(task->thread, runtime->main, arguments, &results);
    runtime->current = before;
    if (status == LUA_YIELD && task->state == TASK_PARKED)
        return;
    if (status == LUA_YIELD) {
        lua_resetthread(task->thread);
        lua_settop(task->thread, 0);
        lua_pushliteral(task->thread, "a task waits with sleep, recv and the like; "
                                      "coroutine.yield is for coroutines of your own");
        task_finish(task, TASK_FAILED);
    } else if (status != LUA_OK) { /* not even the message handler could run */
        lua_resetthread(task->thread);
        task_finish(task, TASK_FAILED);
    } else {
        task_finish(task, task->state == TASK_RUNNING ? TASK_DONE : task->state);
    }
}

void runtime_run_ready(struct runtime *runtime) {
    if (runtime->current)
        return;
    for (int i = 0; runtime->ready && i < READY_AT_ONCE; i++) {
        struct task *task = runtime->ready;
        runtime->ready = task->next_ready;
        if (!runtime->ready)
            runtime->ready_end = &runtime->ready;
        resume(task);
    }
    if (!runtime->ready && !runtime->due)
        uv_idle_stop(&runtime->idle);
}

void wait_post(struct wait *wait, int status) {
    struct task *task = container_of(wait, struct task, wait);
    if (task->state != TASK_PARKED)
        return;
    end_wait(task, status);
    task_make_ready(task);
}

void wait_wake(struct wait *wait, int status) {
    struct task *task = container_of(wait, struct task, wait);
    struct runtime *runtime = task->runtime;
    if (runtime->current || runtime->ready || task->state != TASK_PARKED) {
        wait_post(wait, status);
    } else {
        end_wait(task, status);
        resume(task);
    }
    runtime_run_ready(runtime);
}

void task_wait_deadline_passed(struct deadline *deadline) {
    struct task *task = container_of(deadline, struct task, wait.deadline);
    task_end_wait_early(task, UV_ETIMEDOUT);
    task_make_ready(task);
}

static void go_on(struct runtime *runtime) {
    struct deadline *first = timers_first(&runtime->timers);
    bool idle = !runtime->ready; /* virtual time stands still while somebody has something to do */
    if (runtime->virtual_now_ns && idle && first && first->at_ns > runtime->virtual_now_ns)
        runtime->virtual_now_ns = first->at_ns;
    uint64_t now = runtime_now_ns(runtime);
    while ((first = timers_first(&runtime->timers)) && first->at_ns <= now) {
        timers_remove(&runtime->timers, first);
        first->passed(first);
    }
    arm(runtime);
    runtime_run_ready(runtime);
}

static void timer_fired(uv_timer_t *timer) {
    go_on(container_of(timer, struct runtime, timer));
}

static void idle_fired(uv_idle_t *idle) {
    go_on(container_of(idle, struct runtime, idle));
}

/* --- parking ------------------------------------------------------------------------------- */

struct wait *wait_begin(lua_State *L) {
    struct task *task = runtime_of(L)->current;
    if (!task)
        luaL_error(L, "not in a task: what waits belongs into p2pd.spawn or p2pd.run");
    if (task->thread != L)
        luaL_error(L, "not in a task: a coroutine of the script's own cannot wait, "
                      "start it with p2pd.spawn");
    if (!lua_isyieldable(L))
        luaL_error(L, "cannot wait here: a C function (require, table.sort, string.gsub, "
                      "__tostring) stands between this call and its task");
    if (task->cancelled && !task->unwinding && !task_in_close_handler(L))
        task_raise_cancellation(L, task);
    return &task->wait;
}

static int resumed(lua_State *L, int status, lua_KContext running) {
    (void)status;
    struct task *task = (struct task *)running;
    if (task->raise) {
        task->raise = false;
        return task_raise_cancellation(L, task);
    }
    return task->wait.k(L, task->wait.status, task->wait.ctx);
}

int wait_park(lua_State *L, struct wait *wait, double timeout_s, wait_detach detach, void *arg,
              lua_KFunction k, lua_KContext ctx) {
    struct task *task = container_of(wait, struct task, wait);
    wait->detach = detach;
    wait->arg = arg;
    wait->k = k;
    wait->ctx = ctx;
    task->state = TASK_PARKED;
    if (timeout_s >= 0)
        deadline_set(task->runtime, &wait->deadline, timeout_s);
    return lua_yieldk(L, 0, (lua_KContext)task, resumed);
}
