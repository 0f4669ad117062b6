/* Events: see the header for the model. */

#include "core/event.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "util/error.h"
#include "util/spare.h"

/* A queue begins with this. */
#define QUEUE_MIN_BYTES 1024U
/* Changes of the history looked through in one go. */
#define REPLAY_STEPS 256U
/* What news of holders may take of a turn: with forged marks, one region can be slow. */
#define NOTED_TURN_NS (500 * NSEC_PER_USEC)

struct Notice {
        List link;
        List noted;
        Events *events;
        RegionInterest interest;
        uint64_t grants;        /* as last told */
        bool held;
};

/* One change, with whole paths. */
typedef struct Change {
        RecordHeader header;
        const Directory *parent;        /* of the name `path`; NULL for the root */
        const Directory *to_parent;     /* a rename: of the name `to` */
        Region *region;                 /* what has the name, if it is a region */
        Region *other;                  /* exchange: what has the name `path` now */
        char path[PATH_BYTES_MAX];
        char to[PATH_BYTES_MAX];
} Change;

static int watch_compare(Watch *a, Watch *b) {
        return a->id < b->id ? -1 : a->id > b->id;
}

TREE_GENERATE(WatchTree, Watch, entry, watch_compare)

DEFINE_CLEANUP(Watch, watch_free);

static EventThing thing_of(const Node *node) {
        return (EventThing){ .region = node->region ? node->region->id : 0, .directory = node_is_directory(node) };
}

static bool notice_take(Events *events, Region *region);
static void walk_begin(Watch *watch);
static void work_arm(Events *events);

/* -- queues --------------------------------------------------------------------------- */

static bool queue_put(Watch *watch, const RecordHeader *header, const char *path, const char *to) {
        RecordRing *queue = &watch->queue;
        size_t wanted = (size_t)(queue->end - queue->begin) + record_size(header);
        size_t size = queue->size ? queue->size : QUEUE_MIN_BYTES;

        while (size < wanted)
                size *= 2;
        if (size > WATCH_QUEUE_BYTES || (size > queue->size && record_ring_grow(queue, size)))
                return false;
        return record_ring_put(queue, header, path, to);
}

static void lose(Watch *watch) {
        watch->lossy = true;
        watch->lost = watch->events->sequence;
}

/* What holders do will not be heard of everywhere: there is no memory. */
static void lose_holders(Watch *watch) {
        lose(watch);
        watch->events->ready(watch, false);
}

/* Loses what was not taken, too. */
static void lose_all(Watch *watch) {
        watch->replay = watch->replay_end + 1;
        record_ring_clear(&watch->queue);
        lose(watch);
}

static void watch_put(Watch *watch, const RecordHeader *header, const char *path, const char *to) {
        if (!watch->lossy && !queue_put(watch, header, path, to)) {
                /* In a replay, somebody is taking already: then the queue is empty, and there is no memory. */
                if (!watch->replaying)
                        watch->events->ready(watch, true);
                if (watch->replaying || !queue_put(watch, header, path, to))
                        lose(watch);
        } else if (watch->lossy) {
                lose(watch);
        }
}

/* Whether it has not heard of everything that was before its beginning. */
static bool is_behind(const Watch *watch) {
        return watch->replay <= watch->replay_end;
}

static void watch_tell(Watch *watch, const RecordHeader *header, const char *path, const char *to) {
        if (!(watch->mask & header->what))
                return;
        if (!is_behind(watch) || watch->replaying)
                watch_put(watch, header, path, to);
        else if (header->what == EVENT_HOLDERS)
                lose_all(watch);        /* the history has no holders */
        else
                watch->replay_end = watch->events->sequence;
        watch->events->ready(watch, false);
}

/* -- who hears of what ---------------------------------------------------------------- */

/* What of a change a watcher sees: the sides of a rename, or one name. */
typedef struct View {
        size_t base;            /* bytes of the watched directory's path, which he does not see */
        bool path;
        bool to;
} View;

/* Whether a watcher may list each directory from the watched one down to `directory`. */
static bool may_see_in(const Watch *watch, const Directory *directory) {
        for (const Directory *d = directory; d; d = d->node.parent) {
                if (!access_allows(watch->who, &d->permissions, ACCESS_READ | ACCESS_SEARCH))
                        return false;
                if (&d->node == watch->node)
                        return true;
        }
        return false;
}

static bool is_above(const Directory *above, const Directory *directory) {
        for (; directory; directory = directory->node.parent)
                if (directory == above)
                        return true;
        return false;
}

/* A rename, to somebody who sees one of its sides. */
static void tell_side(Watch *watch, const View *view, const RecordHeader *of, const char *path, const char *to) {
        RecordHeader header = *of;

        header.n_path = (uint16_t)((view->to ? of->n_to : of->n_path) - view->base);
        header.n_to = 0;
        header.exchange = false;
        if (of->exchange || (view->to && of->replaced))
                header.what = EVENT_REPLACED;
        else
                header.what = view->to ? EVENT_CREATED : EVENT_REMOVED;
        if (of->exchange && view->path)
                header.thing = of->other;
        watch_tell(watch, &header, (view->to ? to : path) + view->base, NULL);
}

static void tell_view(Watch *watch, const View *view, const RecordHeader *of, const char *path, const char *to) {
        RecordHeader header = *of;

        if (!view->path && !view->to)
                return;
        if (of->what == EVENT_RENAMED && view->path != view->to) {
                tell_side(watch, view, of, path, to);
                return;
        }
        header.n_path = (uint16_t)(of->n_path - view->base);
        if (of->n_to)
                header.n_to = (uint16_t)(of->n_to - view->base);
        watch_tell(watch, &header, path + view->base, of->n_to ? to + view->base : NULL);
}

/* Regions that came below a watch of holders: one at once, those in a directory by a walk. */
static void follow_holders(Watch *watch, const View *view, const Change *change) {
        bool directory = change->header.thing.directory || change->header.other.directory;

        if (!(watch->mask & EVENT_HOLDERS) || (!view->path && !view->to))
                return;
        if (directory && change->header.what & (EVENT_RENAMED | EVENT_CHANGED))
                walk_begin(watch);
        if (!(change->header.what & (EVENT_CREATED | EVENT_REPLACED | EVENT_RENAMED)))
                return;
        if ((change->region && !notice_take(watch->events, change->region)) ||
            (change->other && !notice_take(watch->events, change->other)))
                lose_holders(watch);
}

/* Tells the watches of one directory. */
static void tell_watches_of(const Directory *directory, const Change *change) {
        bool path = is_above(directory, change->parent);
        bool to = change->to_parent && is_above(directory, change->to_parent);
        char scratch[PATH_BYTES_MAX];
        View view = { .base = directory->node.parent ? tree_path(&directory->node, scratch) : 0 };
        Watch *watch;

        ring_for_each(watch, &directory->node.watches, Watch, in_node) {
                view.path = path && may_see_in(watch, change->parent);
                view.to = to && may_see_in(watch, change->to_parent);
                tell_view(watch, &view, &change->header, change->path, change->to);
                follow_holders(watch, &view, change);
        }
}

/* Tells the watches of all directories that the change is in: above the name, and above the new one. */
static void tell_above(const Change *change) {
        for (const Directory *d = change->parent; d; d = d->node.parent)
                if (d->node.watches.first)
                        tell_watches_of(d, change);
        for (const Directory *d = change->to_parent; d; d = d->node.parent)
                if (d->node.watches.first && !is_above(d, change->parent))
                        tell_watches_of(d, change);
}

/* Tells the watches of the thing itself, which has no name for them. */
static void tell_self(const Node *node, const Change *change) {
        RecordHeader header = change->header;
        Watch *watch;

        header.n_path = header.n_to = 0;
        ring_for_each(watch, &node->watches, Watch, in_node) {
                watch_tell(watch, &header, NULL, NULL);
                if (node->region && watch->mask & EVENT_HOLDERS && header.what == EVENT_REPLACED &&
                    !notice_take(watch->events, node->region))
                        lose_holders(watch);
        }
}

/* Ends the watches of a thing that goes. */
static void end_watches(Node *node, uint64_t sequence) {
        Watch *watch;

        ring_for_each(watch, &node->watches, Watch, in_node) {
                watch->was = thing_of(node);
                watch->removed = sequence;
                watch->node = NULL;
                ring_remove(&node->watches, &watch->in_node);
                watch->events->ready(watch, false);
        }
}

/* -- changes -------------------------------------------------------------------------- */

/* Begins a change at a name. */
static void change_at(Change *change, uint32_t what, const Node *node) {
        change->header = (RecordHeader){ .what = what, .thing = thing_of(node) };
        change->header.n_path = (uint16_t)tree_path(node, change->path);
        change->parent = node->parent;
        change->to_parent = NULL;
        change->region = node->region;
        change->other = NULL;
}

/* Gives the change its number, and its place in the history. */
static void change_number(Events *events, Change *change) {
        RecordRing *history = &events->history;

        change->header.sequence = ++events->sequence;
        counters_used(events->counters, COUNTER_SEQUENCE, events->sequence);
        while (events->sequence - events->oldest >= EVENT_HISTORY ||
               history->end - history->begin + record_size(&change->header) > history->size) {
                record_ring_drop(history);
                ++events->oldest;
        }
        events->at[events->sequence % EVENT_HISTORY] = history->end;
        (void)record_ring_put(history, &change->header, change->path, change->to);
}

static void change_tell(const Events *events, const Change *change) {
        if (events->n_watches > 0)
                tell_above(change);
}

/* A directory's names could be seen or not by others before this. */
static void mark_changed(const Events *events, Node *node) {
        if (node_is_directory(node))
                node_directory(node)->changed = events->sequence;
}

static void tree_made(Node *node, void *userdata) {
        Events *events = userdata;
        Change change;

        change_at(&change, EVENT_CREATED, node);
        change_number(events, &change);
        mark_changed(events, node);
        change_tell(events, &change);
}

static void tree_removed(Node *node, void *userdata) {
        Events *events = userdata;
        Change change;

        change_at(&change, EVENT_REMOVED, node);
        change_number(events, &change);
        change_tell(events, &change);
        end_watches(node, events->sequence);
}

static void tree_replaced(Node *node, void *userdata) {
        Events *events = userdata;
        Change change;

        change_at(&change, EVENT_REPLACED, node);
        change_number(events, &change);
        change_tell(events, &change);
        tell_self(node, &change);
}

static size_t join_path(const Directory *directory, const char *name, size_t n_name, char path[PATH_BYTES_MAX]) {
        size_t n = directory->node.parent ? tree_path(&directory->node, path) : 0;

        path[n++] = '/';
        memcpy(path + n, name, n_name);
        return n + n_name;
}

static void tree_moved(const TreeMove *move, void *userdata) {
        Events *events = userdata;
        Change change = {
                .header = { .what = EVENT_RENAMED, .thing = thing_of(move->node), .replaced = move->replaced },
                .parent = move->from,
                .to_parent = move->node->parent,
                .region = move->node->region,
        };

        if (move->other) {
                change.header.exchange = true;
                change.header.other = thing_of(move->other);
                change.other = move->other->region;
        }
        change.header.n_path = (uint16_t)join_path(move->from, move->name, move->n_name, change.path);
        change.header.n_to = (uint16_t)tree_path(move->node, change.to);
        change_number(events, &change);
        mark_changed(events, move->node);
        if (move->other)
                mark_changed(events, move->other);
        change_tell(events, &change);
        tell_self(move->node, &change);
        if (move->other)
                tell_self(move->other, &change);
}

/* Of the rename, the next change, everybody else hears. */
static void tree_overwritten(Node *node, void *userdata) {
        const Events *events = userdata;

        end_watches(node, events->sequence + 1);
}

/* Tells of a region, or a directory, at each of its names. */
static void tell_at_names(Events *events, const RecordHeader *header, Node *node) {
        const Ring *names = node->region ? &node->region->names : NULL;
        unsigned int n = 0;
        Change change;
        Node *name;

        if (!names) {
                change_at(&change, header->what, node);
                change_number(events, &change);
                change_tell(events, &change);
                tell_self(node, &change);
                return;
        }
        ring_for_each(name, names, Node, in_region) {
                if (n++ == EVENT_NAMES)
                        return;
                change_at(&change, header->what, name);
                change.header.seals = header->seals;
                change.header.grants = header->grants;
                change.header.held = header->held;
                if (header->what == EVENT_HOLDERS)
                        change.header.sequence = events->sequence;
                else
                        change_number(events, &change);
                change_tell(events, &change);
                tell_self(name, &change);
        }
}

static void tree_changed(Node *node, void *userdata) {
        Events *events = userdata;

        tell_at_names(events, &(RecordHeader){ .what = EVENT_CHANGED }, node);
        mark_changed(events, node);
}

static void tree_limited(Directory *directory, void *userdata) {
        tell_at_names(userdata, &(RecordHeader){ .what = EVENT_LIMITS }, &directory->node);
}

void events_frozen(Events *events, Region *region) {
        Node *name = region_name(region);

        if (name)
                tell_at_names(events, &(RecordHeader){ .what = EVENT_FROZEN, .seals = region_seals(region) }, name);
}

static bool hears_of_user(const Watch *watch, uid_t uid) {
        return watch->mask & EVENT_LIMITS && (watch->who->admin || watch->who->uid == uid);
}

void events_limits_user(Events *events, uid_t uid) {
        Change change = { .header = { .what = EVENT_LIMITS, .uid = uid, .account = true } };
        Watch *watch;

        change_number(events, &change);
        list_for_each(watch, &events->limits, Watch, in_limits)
                if (watch->node && hears_of_user(watch, uid))
                        watch_tell(watch, &change.header, NULL, NULL);
}

/* -- what happened before a watch began ------------------------------------------------ */

typedef enum Sight {
        SIGHT_HIDDEN,
        SIGHT_SEEN,
        SIGHT_SELF,
        SIGHT_UNSURE,           /* what is there now does not say what was there then */
} Sight;

/* Whether the path of what is watched, or who could look at it, has changed since the watch's beginning. */
static bool has_moved(const Watch *watch) {
        const Node *node = watch->node;

        if (!node)
                return true;
        for (; node; node = node->parent ? &node->parent->node : NULL)
                if (!node->region && ((const Directory *)node)->changed > watch->since)
                        return true;
        return false;
}

/* Whether a watcher could see a name when something happened there: if no directory on the way has
 * changed since, what is there says so. */
static Sight sight_of(const Watch *watch, const char *base, size_t n_base, const char *path, size_t n_path,
                      uint64_t sequence) {
        static const Credentials all = { .admin = true };
        Spot spot;

        if (n_path == 0 || n_path < n_base || memcmp(path, base, n_base))
                return SIGHT_HIDDEN;
        if (n_path == n_base || (n_base == 0 && n_path == 1))
                return SIGHT_SELF;
        if (path[n_base] != '/' || watch->node->region)
                return SIGHT_HIDDEN;
        if (tree_resolve(watch->events->names, &all, path, n_path, &spot))
                return SIGHT_UNSURE;
        for (const Directory *d = spot.parent; d; d = d->node.parent)
                if (d->changed >= sequence)
                        return SIGHT_UNSURE;
        return may_see_in(watch, spot.parent) ? SIGHT_SEEN : SIGHT_HIDDEN;
}

/* A change of the watched thing itself. That it came, went or moved says that there was another one. */
static bool replay_self(Watch *watch, Record *record) {
        if (record->header.what & (EVENT_CREATED | EVENT_REMOVED | EVENT_RENAMED))
                return false;
        record->header.n_path = 0;
        watch_tell(watch, &record->header, NULL, NULL);
        return true;
}

/* Tells what the watch should have heard of one change. Return: false if that is not certain. */
static bool replay_one(Watch *watch, Record *record, const char *base, size_t n_base) {
        const RecordHeader *header = &record->header;
        const char *path = record->paths, *to = record->paths + header->n_path;
        Sight sees_path, sees_to;
        View view = { .base = n_base };

        if (header->account) {
                if (hears_of_user(watch, header->uid))
                        watch_tell(watch, header, NULL, NULL);
                return true;
        }
        sees_path = sight_of(watch, base, n_base, path, header->n_path, header->sequence);
        sees_to = sight_of(watch, base, n_base, to, header->n_to, header->sequence);
        if (sees_path == SIGHT_UNSURE || sees_to == SIGHT_UNSURE || sees_to == SIGHT_SELF)
                return false;
        if (sees_path == SIGHT_SELF)
                return replay_self(watch, record);
        view.path = sees_path == SIGHT_SEEN;
        view.to = sees_to == SIGHT_SEEN;
        tell_view(watch, &view, header, path, to);
        return true;
}

/* Looks through the history until the empty queue has something, or for as long as one turn may take. */
static void replay_some(Watch *watch) {
        Events *events = watch->events;
        char base[PATH_BYTES_MAX];
        size_t n_base;

        if (has_moved(watch) || watch->replay < events->oldest) {
                lose_all(watch);
                return;
        }
        n_base = watch->node->parent ? tree_path(watch->node, base) : 0;
        for (unsigned int i = 0; i < REPLAY_STEPS && watch->replay <= watch->replay_end; ++i) {
                Record record;

                (void)record_ring_read(&events->history, events->at[watch->replay % EVENT_HISTORY], &record);
                watch->replaying = true;
                if (!replay_one(watch, &record, base, n_base))
                        lose_all(watch);
                watch->replaying = false;
                if (!is_behind(watch))
                        return;
                ++watch->replay;
                if (!record_ring_is_empty(&watch->queue))
                        return;
        }
}

/* -- taking --------------------------------------------------------------------------- */

static void take_queued(Watch *watch, Record *ret) {
        (void)record_ring_read(&watch->queue, watch->queue.begin, ret);
        record_ring_drop(&watch->queue);
        /* What a burst needed is given back; what the usual event needs stays. */
        if (record_ring_is_empty(&watch->queue) && watch->queue.size > QUEUE_MIN_BYTES)
                record_ring_clear(&watch->queue);
}

WatchTake watch_take(Watch *watch, Record *ret) {
        if (record_ring_is_empty(&watch->queue) && is_behind(watch))
                replay_some(watch);
        if (!record_ring_is_empty(&watch->queue)) {
                take_queued(watch, ret);
                return WATCH_EVENT;
        }
        if (is_behind(watch))
                return WATCH_LATER;
        if (watch->lossy) {
                watch->lossy = false;
                ret->header = (RecordHeader){ .what = EVENT_OVERFLOW, .sequence = watch->lost };
                return WATCH_EVENT;
        }
        if (watch->removed) {
                ret->header = (RecordHeader){ .what = EVENT_REMOVED, .sequence = watch->removed, .thing = watch->was };
                watch->removed = 0;
                return WATCH_EVENT;
        }
        return WATCH_NOTHING;
}

bool watch_is_over(const Watch *watch) {
        return !watch->node && !watch->removed && !watch->lossy && record_ring_is_empty(&watch->queue);
}

/* -- holders -------------------------------------------------------------------------- */

static void notice_free(Notice *notice) {
        Events *events = notice->events;

        if (notice->interest.region)
                notice->interest.region->more->notice = NULL;
        region_drop_interest(&notice->interest);
        list_unlink(&notice->link);
        list_unlink(&notice->noted);
        --events->n_notices;
        free(notice);
}

static void notice_heard(RegionInterest *interest, RegionNews news) {
        Notice *notice = interest->userdata;

        if (news == REGION_IS_GONE) {
                notice_free(notice);
        } else if (news != REGION_WAS_FROZEN && list_is_empty(&notice->noted)) {
                list_append(&notice->events->noted, &notice->noted);
                work_arm(notice->events);
        }
}

/* Takes an interest in the holders of a region, unless there is one. Return: false without memory. */
static bool notice_take(Events *events, Region *region) {
        Notice *notice;
        int held;

        if (region_more(region)->notice)
                return true;
        notice = malloc(sizeof(*notice));
        if (!notice)
                return false;
        *notice = (Notice){ .events = events };
        held = region_take_interest(region, &notice->interest, true, notice_heard, notice);
        if (held < 0) {
                free(notice);
                return false;
        }
        list_init(&notice->noted);
        list_append(&events->notices, &notice->link);
        ++events->n_notices;
        region->more->notice = notice;
        notice->held = held;
        notice->grants = region->grants.n;
        return true;
}

static bool wants_holders(const Node *node) {
        const Watch *first = ring_first(&node->watches, Watch, in_node);

        return first && first->mask & EVENT_HOLDERS;
}

/* Those that want to hear of holders come first, so that whether there is one is seen at a look. */
static void watch_join(Watch *watch, Node *node) {
        if (watch->mask & EVENT_HOLDERS)
                ring_prepend(&node->watches, &watch->in_node);
        else
                ring_append(&node->watches, &watch->in_node);
}

/* Whether anybody still watches the region, for its holders. */
static bool is_wanted(const Region *region) {
        unsigned int n = 0;
        const Node *name;

        ring_for_each(name, &region->names, Node, in_region) {
                if (n++ == EVENT_NAMES)
                        return false;
                for (const Node *node = name; node; node = node->parent ? &node->parent->node : NULL)
                        if (wants_holders(node))
                                return true;
        }
        return false;
}

/* Tells who holds a region now, if that is news. */
static void notice_tell(Notice *notice) {
        Region *region = notice->interest.region;
        bool held;

        if (!is_wanted(region)) {
                notice_free(notice);
                return;
        }
        (void)region_grants_reap(region);
        held = region_is_held(region);
        if (held == notice->held && region->grants.n == notice->grants)
                return;
        notice->held = held;
        notice->grants = region->grants.n;
        tell_at_names(notice->events, &(RecordHeader){ .what = EVENT_HOLDERS, .held = held, .grants = notice->grants },
                      region_name(region));
}

static void noted_turn(Events *events) {
        uint64_t until = time_now() + NOTED_TURN_NS;
        Notice *notice;

        for (unsigned int i = 0; i < EVENT_STEPS && time_now() < until; ++i) {
                notice = list_first(&events->noted, Notice, noted);
                if (!notice)
                        return;
                list_unlink(&notice->noted);
                notice_tell(notice);
        }
}

static void stale_turn(Events *events) {
        for (unsigned int i = 0; i < EVENT_STEPS && events->stale > 0; ++i, --events->stale) {
                Notice *notice = list_first(&events->notices, Notice, link);

                if (!notice) {
                        events->stale = 0;
                        return;
                }
                list_move(&events->notices, &notice->link);
                if (!is_wanted(notice->interest.region))
                        notice_free(notice);
        }
}

/* -- walks ---------------------------------------------------------------------------- */

static void walk_begin(Watch *watch) {
        if (!watch->cursor || !watch->node || watch->node->region)
                return;
        if (!list_is_empty(&watch->walk)) {
                watch->walk_again = true;
                return;
        }
        watch->n_cursor = 0;
        list_append(&watch->events->walks, &watch->walk);
        work_arm(watch->events);
}

/* The name after the cursor, which is remembered as what comes after the directory's own path. */
static Node *walk_next(const Watch *watch, size_t n_base, char path[PATH_BYTES_MAX]) {
        Directory *base = node_directory(watch->node);
        Node *node;

        if (watch->n_cursor == 0)
                return tree_list_first(base);
        if (n_base + watch->n_cursor > PATH_BYTES_MAX)
                return NULL;            /* the directory is deeper down now, and that name was too long for it */
        memcpy(path + n_base, watch->cursor, watch->n_cursor);
        if (tree_list_after(base, watch->who, true, n_base ? path : "/", n_base ? n_base : 1,
                            path, n_base + watch->n_cursor, &node))
                return NULL;
        return node;
}

static void walk_end(Watch *watch) {
        list_unlink(&watch->walk);
        if (watch->walk_again) {
                watch->walk_again = false;
                walk_begin(watch);
        }
}

/* Looks at one name. */
static void walk_step(Watch *watch) {
        char path[PATH_BYTES_MAX];
        size_t n_base, n;
        Node *node;

        if (!watch->node || !access_allows(watch->who, &node_directory(watch->node)->permissions,
                                           ACCESS_READ | ACCESS_SEARCH)) {
                walk_end(watch);
                return;
        }
        n_base = watch->node->parent ? tree_path(watch->node, path) : 0;
        node = walk_next(watch, n_base, path);
        if (!node) {
                walk_end(watch);
                return;
        }
        n = tree_path(node, path);
        watch->n_cursor = n - n_base;
        memcpy(watch->cursor, path + n_base, n - n_base);
        if (node->region && !notice_take(watch->events, node->region))
                lose_holders(watch);
}

static void walk_turn(Events *events) {
        for (unsigned int i = 0; i < EVENT_STEPS; ++i) {
                Watch *watch = list_first(&events->walks, Watch, walk);

                if (!watch)
                        return;
                list_move(&events->walks, &watch->walk);
                walk_step(watch);
        }
}

static void work_turn(Deadline *deadline, void *userdata) {
        Events *events = userdata;

        (void)deadline;
        walk_turn(events);
        stale_turn(events);
        noted_turn(events);
        if (!list_is_empty(&events->walks) || events->stale > 0 || !list_is_empty(&events->noted))
                work_arm(events);
}

static void work_arm(Events *events) {
        if (!deadline_is_armed(&events->work))
                deadline_arm(&events->work, events->deadlines, 0, work_turn, events);
}

/* -- watches -------------------------------------------------------------------------- */

/* Where a watch begins: now, or after an event that the history goes back to. */
static void begin_after(Watch *watch, uint64_t since) {
        const Events *events = watch->events;

        watch->since = watch->replay_end = events->sequence;
        watch->replay = events->sequence + 1;
        if (since == 0 || since == events->sequence)
                return;
        if (since > events->sequence || since + 1 < events->oldest) {
                lose(watch);
                return;
        }
        watch->since = since;
        watch->replay = since + 1;
}

int watch_new(Watch **ret, Events *events, Account *account, const Credentials *who, Node *node, uint32_t mask,
              uint64_t since, void *userdata, Shortage *shortage) {
        static const Cost cost = { .slots = { [ACCOUNT_WATCHES] = 1 } };
        CLEANUP(watch_freep) Watch *watch = NULL;
        int r;

        watch = spare_take(sizeof(*watch));
        if (!watch)
                return error_origin(-ENOMEM);
        *watch = (Watch){ .events = events, .node = node, .who = who, .userdata = userdata,
                          .id = ++events->last_watch, .mask = mask, .charge = CHARGE_NULL };
        list_init(&watch->in_node);
        list_init(&watch->in_limits);
        list_init(&watch->link);
        list_init(&watch->ready);
        list_init(&watch->walk);
        (void)RB_INSERT(WatchTree, &events->watches, watch);
        ++events->n_watches;

        r = account_charge(account, &cost, &watch->charge, shortage);
        if (r)
                return r == ACCOUNT_E_QUOTA ? EVENT_E_QUOTA : error_fold(r);
        if (mask & EVENT_HOLDERS) {
                watch->cursor = malloc(PATH_BYTES_MAX);
                if (!watch->cursor || (node->region && !notice_take(events, node->region)))
                        return error_origin(-ENOMEM);
        }
        begin_after(watch, since);
        watch_join(watch, node);
        if (mask & EVENT_LIMITS)
                list_append(&events->limits, &watch->in_limits);
        walk_begin(watch);
        if (is_behind(watch) || watch->lossy)
                events->ready(watch, false);

        *ret = watch;
        watch = NULL;
        return 0;
}

Watch *watch_free(Watch *watch) {
        Events *events;

        if (!watch)
                return NULL;
        events = watch->events;
        if (watch->mask & EVENT_HOLDERS && events->n_notices > 0) {
                events->stale = events->n_notices;
                work_arm(events);
        }
        (void)RB_REMOVE(WatchTree, &events->watches, watch);
        --events->n_watches;
        if (watch->node)
                ring_remove(&watch->node->watches, &watch->in_node);
        list_unlink(&watch->in_limits);
        list_unlink(&watch->link);
        list_unlink(&watch->ready);
        list_unlink(&watch->walk);
        record_ring_clear(&watch->queue);
        free(watch->cursor);
        charge_release(&watch->charge);
        spare_give(watch, sizeof(*watch));
        return NULL;
}

Watch *events_find_watch(Events *events, uint64_t id) {
        Watch key = { .id = id };

        return RB_FIND(WatchTree, &events->watches, &key);
}

/* -- all of them ---------------------------------------------------------------------- */

int events_init(Events *events, Tree *names, Deadlines *deadlines, WatchReadyFn ready) {
        int r;

        *events = (Events){ .names = names, .deadlines = deadlines, .ready = ready };
        events->observer = (TreeObserver){ .made = tree_made, .removed = tree_removed, .replaced = tree_replaced,
                                           .moved = tree_moved, .overwritten = tree_overwritten,
                                           .changed = tree_changed, .limited = tree_limited, .userdata = events };
        /* No two brokers have numbers in common, unless one has a million events a second. */
        events->sequence = time_wall() / NSEC_PER_USEC;
        events->oldest = events->sequence + 1;
        RB_INIT(&events->watches);
        list_init(&events->limits);
        list_init(&events->walks);
        list_init(&events->notices);
        list_init(&events->noted);
        r = record_ring_grow(&events->history, EVENT_HISTORY_BYTES);
        if (r)
                return error_fold(r);
        names->observer = &events->observer;
        return 0;
}

void events_deinit(Events *events) {
        Notice *notice;

        if (!events->names)
                return;
        ASSERT(events->n_watches == 0);
        while ((notice = list_first(&events->notices, Notice, link)))
                notice_free(notice);
        deadline_disarm(&events->work);
        record_ring_clear(&events->history);
        events->names->observer = NULL;
}
