/* Everything that a broker has in one text: see the header for the model. */

#include "lib/picture.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "lib/census.h"

/* -- what regions are called ---------------------------------------------------------------- */

void album_deinit(Album *album) {
        free(album->regions);
        *album = (Album)ALBUM_NULL;
}

size_t album_call(Album *album, uint64_t region) {
        size_t i;

        if (region == 0)
                return 0;
        for (i = 0; i < album->n; ++i)
                if (album->regions[i].id == region)
                        return i + 1;
        if (album->n == album->n_room) {
                album->n_room = album->n_room ? 2 * album->n_room : 64;
                album->regions = realloc(album->regions, album->n_room * sizeof(*album->regions));
                REQUIRE(album->regions);
        }
        album->regions[album->n++] = (struct AlbumRegion){ .id = region };
        return album->n;
}

/* A region keeps the time of its birth. */
static void check_birth(Album *album, const Shmd__Node *node) {
        size_t name = album_call(album, node->region);
        uint64_t *created;

        if (!name)
                return;
        created = &album->regions[name - 1].created_ns;
        REQUIRE(*created == 0 || *created == node->created_ns, "region %" PRIu64 " was made at %" PRIu64 ", not %" PRIu64,
                node->region, *created, node->created_ns);
        *created = node->created_ns;
}

/* -- any message as text ---------------------------------------------------------------------- */

typedef enum Meaning {
        MEANS_ITSELF,
        MEANS_REGION,           /* the number of a region */
        MEANS_PRESENCE,         /* only whether it is there */
        MEANS_NOTHING,
} Meaning;

/* Fields with the same name mean the same in every message, but for those with a message's name. */
static const struct {
        const char *message, *field;
        Meaning meaning;
} meanings[] = {
        { "Node", "granted", MEANS_NOTHING },           /* since it was made: also grants that nobody got */
        { "AccountUse", "granted", MEANS_NOTHING },
        { "TicketReply", "id", MEANS_PRESENCE },
        { "TicketInfo", "id", MEANS_PRESENCE },
        { NULL, "region", MEANS_REGION },
        { NULL, "bell", MEANS_REGION },
        { NULL, "page", MEANS_REGION },
        { NULL, "orphan", MEANS_REGION },
        { NULL, "grant", MEANS_PRESENCE },
        { NULL, "watch", MEANS_PRESENCE },
        { NULL, "ticket", MEANS_PRESENCE },
        { NULL, "ttl_ns", MEANS_PRESENCE },
        { NULL, "session", MEANS_PRESENCE },
        { NULL, "sequence", MEANS_NOTHING },
        { NULL, "generation", MEANS_NOTHING },
        { NULL, "grants", MEANS_NOTHING },              /* on the books, where those that ended stay a while */
        { NULL, "created_ns", MEANS_NOTHING },
        { NULL, "age_ns", MEANS_NOTHING },
        { NULL, "allocated", MEANS_NOTHING },
        { NULL, "marked", MEANS_NOTHING },
        { NULL, "marker", MEANS_NOTHING },
        { NULL, "connected", MEANS_NOTHING },
        { NULL, "resumed", MEANS_NOTHING },
        { NULL, "pid", MEANS_NOTHING },
        { NULL, "pidfd_ino", MEANS_NOTHING },
};

static Meaning meaning_of(const ProtobufCMessageDescriptor *message, const char *field) {
        for (size_t i = 0; i < sizeof(meanings) / sizeof(*meanings); ++i)
                if (strcmp(meanings[i].field, field) == 0 &&
                    (!meanings[i].message || strcmp(meanings[i].message, message->short_name) == 0))
                        return meanings[i].meaning;
        return MEANS_ITSELF;
}

static void write_message(FILE *out, Album *album, const ProtobufCMessage *message);

/* The length, of bytes. */
static uint64_t value_of(const ProtobufCFieldDescriptor *field, const void *at) {
        if (field->type == PROTOBUF_C_TYPE_UINT32)
                return *(const uint32_t *)at;
        if (field->type == PROTOBUF_C_TYPE_UINT64)
                return *(const uint64_t *)at;
        if (field->type == PROTOBUF_C_TYPE_BOOL)
                return (uint64_t)*(const protobuf_c_boolean *)at;
        REQUIRE(field->type == PROTOBUF_C_TYPE_BYTES, "the type of %s is known", field->name);
        return ((const ProtobufCBinaryData *)at)->len;
}

static void write_value(FILE *out, Album *album, const ProtobufCFieldDescriptor *field, const void *at,
                        Meaning meaning) {
        uint64_t value;

        if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
                write_message(out, album, *(const ProtobufCMessage *const *)at);
                return;
        }
        value = value_of(field, at);
        if (value == 0 || meaning == MEANS_NOTHING)
                return;
        if (meaning == MEANS_REGION)
                fprintf(out, " %s=#%zu", field->name, album_call(album, value));
        else if (meaning == MEANS_PRESENCE)
                fprintf(out, " %s", field->name);
        else if (field->type == PROTOBUF_C_TYPE_BYTES)
                fprintf(out, " %s=%.*s", field->name, (int)value, (const char *)((const ProtobufCBinaryData *)at)->data);
        else
                fprintf(out, " %s=%" PRIu64, field->name, value);
}

static size_t size_of(const ProtobufCFieldDescriptor *field) {
        return field->type == PROTOBUF_C_TYPE_UINT32 ? sizeof(uint32_t) :
               field->type == PROTOBUF_C_TYPE_UINT64 ? sizeof(uint64_t) :
               field->type == PROTOBUF_C_TYPE_BYTES  ? sizeof(ProtobufCBinaryData) :
                                                       sizeof(void *);
}

static void write_message(FILE *out, Album *album, const ProtobufCMessage *message) {
        const ProtobufCMessageDescriptor *descriptor;

        if (!message)
                return;
        descriptor = message->descriptor;
        fprintf(out, " {%s", descriptor->short_name);
        for (unsigned int i = 0; i < descriptor->n_fields; ++i) {
                const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
                const uint8_t *at = (const uint8_t *)message + field->offset;
                Meaning meaning = meaning_of(descriptor, field->name);
                size_t n = 1;

                if (field->label == PROTOBUF_C_LABEL_REPEATED) {
                        n = *(const size_t *)((const uint8_t *)message + field->quantifier_offset);
                        at = *(const uint8_t *const *)at;
                }
                for (size_t k = 0; k < n; ++k)
                        write_value(out, album, field, at + k * size_of(field), meaning);
        }
        fprintf(out, "}");
}

char *picture_answer(Album *album, const ProtobufCMessage *answer) {
        char *text = NULL;
        size_t n;
        FILE *out = open_memstream(&text, &n);

        REQUIRE(out);
        write_message(out, album, answer);
        REQUIRE(fclose(out) == 0);
        return text;
}

/* -- taking one ------------------------------------------------------------------------------- */

typedef void (*NodeFn)(void *userdata, const Shmd__Node *node, FILE *out);

/* Calls fn for every node of the tree, or for every region without a name. */
static void list_all(Client *admin, uint32_t flags, NodeFn fn, void *userdata, FILE *out) {
        uint8_t cursor[1024];
        Shmd__List list = SHMD__LIST__INIT;
        const Shmd__ListReply *reply;

        list.path = BYTES(flags & SHMD__LIST_FLAGS__LIST_ORPHANS ? "" : "/");
        list.flags = flags;
        list.cursor.data = cursor;
        do {
                client_expect_done(admin, client_call(admin, MESSAGE_LIST, &list.base));
                reply = (const Shmd__ListReply *)admin->reply;
                for (size_t i = 0; i < reply->n_nodes; ++i)
                        fn(userdata, reply->nodes[i], out);
                REQUIRE(reply->cursor.len < sizeof(cursor));
                if (reply->cursor.len)
                        memcpy(cursor, reply->cursor.data, reply->cursor.len);
                list.cursor.len = reply->cursor.len;
                list.orphan = reply->orphan;
        } while (list.cursor.len || list.orphan);
}

typedef struct Camera {
        Client *admin;
        Album *album;
        FILE *names, *rest, *holders;
        uint64_t *regions;      /* all that there are, each once */
        size_t n_regions;
} Camera;

static bool camera_has(const Camera *camera, uint64_t region) {
        for (size_t i = 0; i < camera->n_regions; ++i)
                if (camera->regions[i] == region)
                        return true;
        return false;
}

static void camera_note(Camera *camera, uint64_t region) {
        if (region == 0 || camera_has(camera, region))
                return;
        (void)album_call(camera->album, region);
        camera->regions = realloc(camera->regions, (camera->n_regions + 1) * sizeof(*camera->regions));
        REQUIRE(camera->regions);
        camera->regions[camera->n_regions++] = region;
}

static void list_node(void *userdata, const Shmd__Node *node, FILE *out) {
        Camera *camera = userdata;

        check_birth(camera->album, node);
        write_message(out, camera->album, &node->base);
        fputc('\n', out);
        camera_note(camera, node->region);
        camera_note(camera, node->bell);
}

static void write_reply(Camera *camera, FILE *out, const char *title) {
        fprintf(out, "%s", title);
        write_message(out, camera->album, camera->admin->reply);
        fputc('\n', out);
}

/* A directory's own line, its permissions and limits; or a name's permissions. */
static void write_details(Camera *camera, const char *path, bool directory) {
        Client *admin = camera->admin;
        uint32_t error = client_call(admin, MESSAGE_GET_ACL, REQUEST(GetAcl, get_acl, .path = BYTES(path)));

        if (error == SHMD__ERROR__ERROR_NOT_FOUND)
                return;         /* gone since */
        client_expect_done(admin, error);
        write_reply(camera, camera->names, path);
        if (!directory)
                return;
        client_expect_done(admin, client_call(admin, MESSAGE_DF,
                                              REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_DIRECTORY,
                                                      .path = BYTES(path))));
        write_reply(camera, camera->rest, path);
}

/* Paths come out of the list's own text, as the answer that had them is gone by then. */
static void write_all_details(Camera *camera, const char *names) {
        write_details(camera, "/", true);
        for (const char *line = names; *line; line = strchr(line, '\n') + 1) {
                const char *path = strstr(line, " path=");
                char copy[1024];

                REQUIRE(path && path < strchr(line, '\n'));
                path += sizeof(" path=") - 1;
                (void)snprintf(copy, sizeof(copy), "%.*s", (int)strcspn(path, " }\n"), path);
                write_details(camera, copy, !strstr(line, " region=#") || strstr(line, " region=#") > strchr(line, '\n'));
        }
}

static int compare_lines(const void *a, const void *b) {
        return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Who holds a region, in no order: grants are listed in the order of their numbers. */
static void write_holders(Camera *camera, const Shmd__StatReply *stat) {
        char **lines = calloc(stat->n_holders + 1, sizeof(*lines));

        REQUIRE(lines);
        for (size_t i = 0; i < stat->n_holders; ++i)
                lines[i] = picture_answer(camera->album, &stat->holders[i]->base);
        qsort(lines, stat->n_holders, sizeof(*lines), compare_lines);
        for (size_t i = 0; i < stat->n_holders; ++i) {
                fprintf(camera->holders, "#%zu%s\n", album_call(camera->album, stat->node->region), lines[i]);
                free(lines[i]);
        }
        free(lines);
}

static void write_region(Camera *camera, uint64_t region) {
        Client *admin = camera->admin;
        const Shmd__StatReply *stat;
        uint32_t error;

        error = client_call(admin, MESSAGE_STAT,
                            REQUEST(Stat, stat, .region = region,
                                    .flags = SHMD__STAT_FLAGS__STAT_HOLDERS | SHMD__STAT_FLAGS__STAT_NAMES));
        if (error == SHMD__ERROR__ERROR_NOT_FOUND)
                return;         /* gone since, or a doorbell's page */
        client_expect_done(admin, error);
        stat = (const Shmd__StatReply *)admin->reply;
        if (stat->held)
                fprintf(camera->holders, "#%zu held\n", album_call(camera->album, region));
        fprintf(camera->rest, "#%zu size=%" PRIu64 " uid=%u", album_call(camera->album, region), stat->node->size,
                stat->node->uid);
        for (size_t i = 0; i < stat->n_names; ++i)
                fprintf(camera->rest, " %.*s", (int)stat->names[i].len, (const char *)stat->names[i].data);
        fputc('\n', camera->rest);
        write_holders(camera, stat);
        error = client_call(admin, MESSAGE_TICKETS, REQUEST(Tickets, tickets, .region = region));
        if (error == SHMD__ERROR__ERROR_NOT_FOUND)
                return;
        client_expect_done(admin, error);
        if (((const Shmd__TicketsReply *)admin->reply)->n_tickets)
                write_reply(camera, camera->rest, "tickets");
}

static void write_account(Camera *camera, const Shmd__AccountUse *account) {
        bool used = false;

        for (size_t i = 0; i < account->n_slots; ++i)
                used = used || (account->slots[i]->used &&
                                (account->slots[i]->slot == SHMD__SLOT__SLOT_BYTES ||
                                 account->slots[i]->slot == SHMD__SLOT__SLOT_REGIONS));
        if (!used)
                return;
        fprintf(camera->rest, "uid %u", account->uid);
        for (size_t i = 0; i < account->n_slots; ++i)
                if (account->slots[i]->slot == SHMD__SLOT__SLOT_BYTES ||
                    account->slots[i]->slot == SHMD__SLOT__SLOT_REGIONS)
                        write_message(camera->rest, camera->album, &account->slots[i]->base);
        fputc('\n', camera->rest);
}

static void write_accounts(Camera *camera) {
        Shmd__Df df = SHMD__DF__INIT;
        const Shmd__DfReply *reply;

        df.scope = SHMD__DF_SCOPE__DF_ACCOUNTS;
        do {
                client_expect_done(camera->admin, client_call(camera->admin, MESSAGE_DF, &df.base));
                reply = (const Shmd__DfReply *)camera->admin->reply;
                for (size_t i = 0; i < reply->n_accounts; ++i)
                        write_account(camera, reply->accounts[i]);
                df.cursor = reply->cursor;
        } while (reply->more);
}

static void write_policy(Camera *camera) {
        uint64_t generation;

        client_expect_done(camera->admin, client_call(camera->admin, MESSAGE_DOCTOR, REQUEST(Doctor, doctor)));
        generation = ((const Shmd__DoctorReply *)camera->admin->reply)->policy_generation;
        if (camera->album->policy == 0)
                camera->album->policy = generation;
        fprintf(camera->names, "policy %+" PRId64 "\n", (int64_t)(generation - camera->album->policy));
}

void picture_take(Picture *picture, Album *album, Client *admin) {
        Camera camera = { .admin = admin, .album = album };
        size_t n_names, n_rest, n_holders;

        picture_deinit(picture);
        camera.names = open_memstream(&picture->names, &n_names);
        camera.rest = open_memstream(&picture->rest, &n_rest);
        camera.holders = open_memstream(&picture->holders, &n_holders);
        REQUIRE(camera.names && camera.rest && camera.holders);

        list_all(admin, SHMD__LIST_FLAGS__LIST_RECURSIVE, list_node, &camera, camera.names);
        REQUIRE(fflush(camera.names) == 0);
        {
                CLEANUP(freep) char *names = strdup(picture->names);

                REQUIRE(names);
                write_all_details(&camera, names);
        }
        write_policy(&camera);
        list_all(admin, SHMD__LIST_FLAGS__LIST_ORPHANS, list_node, &camera, camera.rest);
        /* In an order that does not depend on their names. */
        for (size_t i = 0; i < album->n; ++i)
                if (camera_has(&camera, album->regions[i].id))
                        write_region(&camera, album->regions[i].id);
        write_accounts(&camera);
        REQUIRE(fclose(camera.names) == 0 && fclose(camera.rest) == 0 && fclose(camera.holders) == 0);
        /* What is not there any more, and came last, leaves its place to the next. */
        while (album->n > 0 && !camera_has(&camera, album->regions[album->n - 1].id))
                --album->n;
        free(camera.regions);
}

void picture_deinit(Picture *picture) {
        free(picture->names);
        free(picture->rest);
        free(picture->holders);
        *picture = (Picture)PICTURE_NULL;
}

void picture_copy(Picture *picture, const Picture *of) {
        picture_deinit(picture);
        *picture = (Picture){ .names = strdup(of->names), .rest = strdup(of->rest), .holders = strdup(of->holders) };
        REQUIRE(picture->names && picture->rest && picture->holders);
}

bool picture_equals(const Picture *a, const Picture *b) {
        return strcmp(a->names, b->names) == 0 && strcmp(a->rest, b->rest) == 0 && strcmp(a->holders, b->holders) == 0;
}

/* -- what differs ------------------------------------------------------------------------------- */

/* How often a text has a line, up to its end. */
static size_t count_line(const char *text, const char *end, const char *line, size_t n) {
        size_t count = 0;

        for (; *text && text < end; text += strcspn(text, "\n"), text += *text == '\n')
                count += strcspn(text, "\n") == n && memcmp(text, line, n) == 0;
        return count;
}

static void write_missing(FILE *out, char sign, const char *in, const char *from) {
        const char *begin = in;
        unsigned int shown = 0;

        for (; *in && shown < 6; in += strcspn(in, "\n"), in += *in == '\n') {
                size_t n = strcspn(in, "\n");

                if (count_line(begin, in + 1, in, n) <= count_line(from, from + strlen(from), in, n))
                        continue;
                fprintf(out, "%c%.*s\n", sign, (int)n, in);
                ++shown;
        }
}

const char *picture_differs(const char *expected, const char *got) {
        static char text[4096];
        FILE *out = fmemopen(text, sizeof(text) - 1, "w");

        REQUIRE(out);
        memset(text, 0, sizeof(text));
        write_missing(out, '-', expected, got);
        write_missing(out, '+', got, expected);
        (void)fclose(out);
        return text;
}

/* -- the books and the kernel --------------------------------------------------------------------- */

typedef struct Books {
        Client *admin;
        pid_t broker, keeper;
        uint64_t ids[32768];
        uint64_t sizes[32768];
        size_t n;
        size_t n_more;                  /* directories, and names beyond a region's first: charged as regions are */
        uint64_t charged;
        char why[256];
} Books;

/* Return: whether it was not noted yet. */
static bool books_note(Books *books, uint64_t id, uint64_t size, uint64_t charge) {
        for (size_t i = 0; i < books->n; ++i)
                if (books->ids[i] == id)
                        return false;
        REQUIRE(books->n < sizeof(books->ids) / sizeof(*books->ids));
        books->ids[books->n] = id;
        books->sizes[books->n++] = size;
        books->charged += charge;
        return true;
}

static void books_node(void *userdata, const Shmd__Node *node, FILE *out) {
        Books *books = userdata;

        (void)out;
        if (node->kind == SHMD__NODE_KIND__NODE_DIRECTORY || !books_note(books, node->region, node->size, node->charge))
                ++books->n_more;
        if (node->bell)
                (void)books_note(books, node->bell, PAGE, PAGE);
}

static bool books_say(Books *books, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool books_say(Books *books, const char *format, ...) {
        va_list args;

        va_start(args, format);
        (void)vsnprintf(books->why, sizeof(books->why), format, args);
        va_end(args);
        return false;
}

static bool has_all(Books *books, const char *whose, pid_t pid) {
        CLEANUP(census_deinit) Census census = CENSUS_NULL;

        census_look_at(&census, pid);
        for (size_t i = 0; i < census.n; ++i) {
                const Seen *seen = &census.seen[i];
                size_t k = 0;

                while (k < books->n && books->ids[k] != seen->id)
                        ++k;
                if (k == books->n)
                        return books_say(books, "%s has region %" PRIu64 ", which is not listed", whose, seen->id);
                if (seen->size != books->sizes[k])
                        return books_say(books, "%s has region %" PRIu64 " of %" PRIu64 " bytes, not %" PRIu64, whose,
                                         seen->id, seen->size, books->sizes[k]);
                if (seen->n_open != 1 || seen->n_mapped != 0)
                        return books_say(books, "%s has region %" PRIu64 " open %u times", whose, seen->id, seen->n_open);
        }
        if (census.n != books->n)
                return books_say(books, "%s has %zu regions of %zu", whose, census.n, books->n);
        return true;
}

static bool books_balance(void *userdata) {
        Books *books = userdata;
        uint64_t bytes, regions;

        books->n = books->n_more = 0;
        books->charged = 0;
        list_all(books->admin, SHMD__LIST_FLAGS__LIST_RECURSIVE, books_node, books, NULL);
        list_all(books->admin, SHMD__LIST_FLAGS__LIST_ORPHANS, books_node, books, NULL);
        bytes = client_total_used(books->admin, SHMD__SLOT__SLOT_BYTES);
        regions = client_total_used(books->admin, SHMD__SLOT__SLOT_REGIONS);
        if (bytes != books->charged || regions != books->n + books->n_more)
                return books_say(books, "%" PRIu64 " bytes and %" PRIu64 " regions are charged, %" PRIu64
                                 " and %zu with %zu directories and further names are listed", bytes, regions,
                                 books->charged, books->n, books->n_more);
        return has_all(books, "the broker", books->broker) &&
               (books->keeper == 0 || has_all(books, "the keeper", books->keeper));
}

size_t books_expect(Client *admin, pid_t broker, pid_t keeper) {
        Books *books = calloc(1, sizeof(*books));
        size_t n;

        REQUIRE(books);
        books->admin = admin;
        books->broker = broker;
        books->keeper = keeper;
        if (!test_eventually(books_balance, books))
                test_fail(__FILE__, __LINE__, "the books say what the kernel says", " %s", books->why);
        n = books->n;
        free(books);
        return n;
}
