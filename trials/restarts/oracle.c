/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What may be said, must be said, and has been said. See storm.h.
 *
 * A domain's UUID is its life's number, so an event names its life. A generator of deaths that is not told of an end before
 * the number is used again follows the new domain, as libxl's does; the others notice by the UUID, once they have looked.
 */
#include "storm.h"

enum { LIVES_MAX = 400000, GENERATORS_MAX = 3000000 };

struct life {
    uint32_t domid, slot;
    uint16_t steps[STEPS_MAX];
    uint8_t count;
    /* The next life with the same number, 0 for none. */
    int next;
};

struct generator {
    unsigned observer : 8, slot : 8, kind : 2;
    /* Its enable has succeeded; it was disabled, or that has failed; it has told of the end; it has looked. */
    bool enabled, closed, ended, pinned, told;
    /* The life that it is about, and the last step of it that it has told, or need not. */
    int life, step;
    void *evgen;
    /* Of one for any domain, by life: 0 for one that it hasn't told of, else the step + 1. */
    int8_t *steps;
};

unsigned patience_s = 600;
enum spoil spoil;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct life *lives;
static int last_life;
static int newest_of[0x8000];
static struct generator *generators;
/* Those for any domain come first. */
static uint64_t last_generator, last_any, oldest_open = 1;
static struct tally totals;
/* Lives that were dead and told of when all was quiet. */
static int settled_lives;

static const char magic[8] = "a life: ";

/* ---- lives ---- */

int begin_life(unsigned slot, uint32_t domid)
{
    int life;

    pthread_mutex_lock(&lock);
    if (!lives)
        lives = calloc(LIVES_MAX, sizeof *lives);
    CHECK(lives && last_life + 1 < LIVES_MAX);
    life = ++last_life;
    lives[life] = (struct life){ .domid = domid, .slot = slot, .count = 1, .steps = { RUNNING } };
    /* It may be seen at once. */
    if (newest_of[domid])
        lives[newest_of[domid]].next = life;
    totals.lives++;
    pthread_mutex_unlock(&lock);
    return life;
}

void has_begun(int life)
{
    pthread_mutex_lock(&lock);
    newest_of[lives[life].domid] = life;
    pthread_mutex_unlock(&lock);
}

void note_state(int life, int state)
{
    pthread_mutex_lock(&lock);
    CHECK(lives[life].count < STEPS_MAX);
    lives[life].steps[lives[life].count++] = (uint16_t)state;
    pthread_mutex_unlock(&lock);
}

static int last_step(int life) { return lives[life].count - 1; }
static int present(int life) { return lives[life].steps[last_step(life)]; }

int state_of(int life)
{
    return present(life);
}

/* With room for all that may still come to it. */
bool can_live_on(int life)
{
    return lives[life].count + 4 < STEPS_MAX;
}

uint32_t domid_of(int life)
{
    return lives[life].domid;
}

void uuid_of(int life, uint8_t uuid[16])
{
    memset(uuid, 0x55, 16);
    memcpy(uuid, magic, sizeof magic);
    memcpy(uuid + sizeof magic, &life, sizeof life);
}

/* The life that an event speaks of; 0 if it doesn't know. */
static int life_of_event(const libxl_event *event)
{
    static const uint8_t none[16];
    int life;

    if (memcmp(event->domuuid.uuid, none, sizeof none) == 0)
        return 0;
    if (memcmp(event->domuuid.uuid, magic, sizeof magic) != 0)
        FAIL("an event of type %d of domain %u has a UUID of no domain", (int)event->type, event->domid);
    memcpy(&life, event->domuuid.uuid + sizeof magic, sizeof life);
    if (life < 1 || life > last_life || lives[life].domid != event->domid)
        FAIL("an event of type %d of domain %u has another domain's UUID", (int)event->type, event->domid);
    return life;
}

static int state_of_event(const libxl_event *event)
{
    switch ((int)event->type) {
    case LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN: return event->u.domain_shutdown.shutdown_reason;
    case LIBXL_EVENT_TYPE_DOMAIN_DEATH: return DEAD;
    case LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED: return REASON_SUSPEND;
    case LIBXL_EVENT_TYPE_DOMAIN_RUNNING: return RUNNING;
    case LIBXL_EVENT_TYPE_DOMAIN_CREATED: return NOT_CREATED;
    default: FAIL("an event of type %d", (int)event->type);
    }
}

/* ---- generators ---- */

uint64_t begin_generator(unsigned observer, enum kind kind, unsigned slot, uint32_t domid)
{
    struct generator *generator;
    uint64_t user;

    pthread_mutex_lock(&lock);
    if (!generators)
        generators = calloc(GENERATORS_MAX, sizeof *generators);
    CHECK(generators && last_generator + 1 < GENERATORS_MAX);
    user = ++last_generator;
    generator = &generators[user];
    *generator = (struct generator){ .observer = observer & 0xff, .slot = slot & 0xff, .kind = kind & 3 };
    if (kind == ANY) {
        CHECK(last_any == user - 1);
        last_any = user;
        oldest_open = user + 1;
        generator->steps = calloc(LIVES_MAX, 1);
        CHECK(generator->steps);
    } else {
        generator->life = newest_of[domid];
    }
    totals.generators++;
    pthread_mutex_unlock(&lock);
    return user;
}

void generator_enabled(uint64_t user, void *evgen)
{
    pthread_mutex_lock(&lock);
    generators[user].evgen = evgen;
    generators[user].enabled = true;
    pthread_mutex_unlock(&lock);
}

void *generator_ends(uint64_t user, bool failed)
{
    void *evgen;

    pthread_mutex_lock(&lock);
    if (!generators[user].enabled && !generators[user].closed && !failed) {
        pthread_mutex_unlock(&lock);
        return STILL_ENABLING;
    }
    evgen = generators[user].evgen;
    generators[user].evgen = NULL;
    generators[user].enabled = false;
    generators[user].closed = true;
    pthread_mutex_unlock(&lock);
    return evgen;
}

static void print_life(int life)
{
    int i;

    printf("    life %d of domain %u:", life, lives[life].domid);
    for (i = 0; i < lives[life].count; i++)
        printf(" %s%.0d", lives[life].steps[i] == RUNNING ? "running" : lives[life].steps[i] == DEAD ? "dead" : "down ",
               lives[life].steps[i] < RUNNING ? lives[life].steps[i] : 0);
    printf("\n");
}

__attribute__((noreturn)) static void wrong(uint64_t user, int life, int state, const char *how)
{
    const struct generator *generator = &generators[user];
    int each;

    for (each = generator->kind == ANY ? life : generator->life; each; each = lives[each].next)
        print_life(each);
    FAIL("%s: generator %llu (kind %d, slot %u): %s: state %#x of life %d; it is about life %d, step %d%s%s",
         observer_name(generator->observer), (unsigned long long)user, generator->kind, generator->slot, how, state, life,
         generator->life, generator->kind == ANY ? generator->steps[life] : generator->step, generator->ended ? ", ended" : "",
         generator->pinned ? ", has looked" : "");
}

/* The step of a life from here on in which it came to this state; 0 for none. */
static int find_step(int life, int from, int state)
{
    for (; from < lives[life].count; from++)
        if (lives[life].steps[from] == state)
            return from;
    return 0;
}

/* Of one for any domain, a life's `steps`: 0 unknown, else the last step that was told + 1. */
static void take_in_any(struct generator *generator, uint64_t user, int life, int state)
{
    int step, told;

    if (!life)
        wrong(user, life, state, "of no life");
    told = generator->steps[life];
    if (state == NOT_CREATED) {
        if (told)
            wrong(user, life, state, "created twice");
        generator->steps[life] = 1;
        return;
    }
    step = told ? find_step(life, told, state) : 0;
    if (!step)
        wrong(user, life, state, told ? "not what comes next" : "not created yet");
    generator->steps[life] = (int8_t)(step + 1);
}

static void take_in_one(struct generator *generator, uint64_t user, int life, int state)
{
    int step;

    if (generator->ended)
        wrong(user, life, state, "after its last word");
    if (!life) {
        /* It never saw the domain: that is gone, or one after it. */
        if (state != DEAD || generator->told)
            wrong(user, life, state, "of no life");
        for (life = generator->life; life && present(life) != DEAD; life = lives[life].next)
            ;
        if (!life)
            wrong(user, life, state, "nobody is dead");
    }
    while (generator->life != life) {
        /* Its domain has gone, and it has not noticed. */
        if (present(generator->life) != DEAD || !lives[generator->life].next)
            wrong(user, life, state, "of another life");
        if (generator->kind == STATES && generator->pinned)
            wrong(user, life, state, "the end of the one before is missing");
        generator->life = lives[generator->life].next;
        generator->step = 0;
        totals.followed++;
    }
    step = find_step(life, generator->step + 1, state);
    if (!step || (generator->kind == DEATHS && (state == REASON_SUSPEND || state == RUNNING)))
        wrong(user, life, state, "not what comes next");
    generator->step = step;
    generator->told = true;
    generator->ended = state == DEAD;
}

bool take_in(unsigned observer, const libxl_event *event)
{
    uint64_t user = event->for_user;
    struct generator *generator;
    bool last;

    pthread_mutex_lock(&lock);
    if (user < 1 || user > last_generator || generators[user].observer != observer)
        FAIL("%s: an event of type %d of domain %u for nobody", observer_name(observer), (int)event->type, event->domid);
    generator = &generators[user];
    if (generator->kind == ANY)
        take_in_any(generator, user, life_of_event(event), state_of_event(event));
    else
        take_in_one(generator, user, life_of_event(event), state_of_event(event));
    totals.events++;
    last = generator->ended;
    pthread_mutex_unlock(&lock);
    return last;
}

/* ---- the truth ---- */

/* Whether what was told, up to a step of a life, is how it stands. */
static bool stands(int life, int step, enum kind kind)
{
    int now = present(life);

    if (step < 0)
        return now == DEAD;
    if (kind == DEATHS && (now == RUNNING || now == REASON_SUSPEND))
        return true;
    return lives[life].steps[step] == now;
}

static bool has_told(const struct generator *generator, int *which)
{
    int life;

    if (generator->kind == ANY) {
        for (life = settled_lives + 1; life <= last_life; life++)
            if (!stands(life, generator->steps[life] - 1, ANY)) {
                *which = life;
                return false;
            }
        return true;
    }
    if (generator->ended)
        return true;
    *which = life = generator->life;
    if (!lives[life].next)
        return stands(life, generator->step, (enum kind)generator->kind);
    /* Its number is another's now. */
    if (generator->kind == STATES && generator->pinned)
        return false;
    while (lives[life].next)
        life = lives[life].next;
    return generator->told || stands(life, 0, (enum kind)generator->kind);
}

/* All have told: what they say from here on is new. */
static void settle_books(void)
{
    uint64_t user;
    int life, i;

    for (user = 1; user <= last_any; user++)
        for (life = settled_lives + 1; life <= last_life; life++)
            generators[user].steps[life] = (int8_t)(last_step(life) + 1);
    for (user = oldest_open; user <= last_generator; user++) {
        struct generator *generator = &generators[user];

        if (!generator->enabled || generator->ended)
            continue;
        while (lives[generator->life].next)
            generator->life = lives[generator->life].next;
        generator->step = last_step(generator->life);
        generator->pinned = true;
    }
    while (oldest_open <= last_generator && generators[oldest_open].closed)
        oldest_open++;
    for (i = settled_lives + 1; i <= last_life && present(i) == DEAD; i++)
        settled_lives = i;
}

void await_truth(void)
{
    uint64_t deadline = now_ms() + patience_s * 1000, user, missing;
    int life = 0;

    for (;;) {
        pthread_mutex_lock(&lock);
        missing = 0;
        for (user = 1; user <= last_generator && !missing; user = user == last_any ? oldest_open : user + 1)
            if (generators[user].enabled && !has_told(&generators[user], &life))
                missing = user;
        if (!missing) {
            settle_books();
            pthread_mutex_unlock(&lock);
            return;
        }
        if (now_ms() > deadline)
            wrong(missing, life, present(life), "was never told");
        pthread_mutex_unlock(&lock);
        usleep(500);
    }
}

struct tally tally(void)
{
    struct tally result;

    pthread_mutex_lock(&lock);
    result = totals;
    pthread_mutex_unlock(&lock);
    return result;
}
